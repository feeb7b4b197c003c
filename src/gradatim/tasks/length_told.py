"""A task whose problems say how long their solutions should be."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from gradatim.part import PartOf, part
from gradatim.tasks.base import Task, Verdict
from gradatim.text.boundaries.base import Boundary
from gradatim.text.solution_end import SolutionEnd
from gradatim.tree import Problem

_WITHOUT = "problem without its length"  # the key of a problem's data under which it lies as it was


@part
class LengthTold(Task):
    """Another task, with a length to keep to behind each problem (L1, Aggarwal and Welleck, 2025, arXiv:2503.04697).

    The lengths are drawn for each problem from those that are given, the same whenever the problem is read, and lie in
    its data as ``length``, where the values `length_budget` reward solutions by them. Solutions are answered and
    verified as those of the task itself, which nothing tells of the length. To ask for one length, give that alone.
    """

    task: Annotated[Task, PartOf("tasks")]
    """The task."""
    lengths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """What is drawn from."""
    instruction: Annotated[str, Field(pattern=r"\{length\}")] = "Think for {length} tokens.\n"
    """What is written behind a problem, with the length in the place of ``{length}``."""

    @property
    def boundary(self) -> Boundary:
        return self.task.boundary

    @property
    def solution_end(self) -> SolutionEnd:
        return self.task.solution_end

    @property
    def files(self) -> tuple[Path, ...]:
        return self.task.files

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The problems of the task, each with its length."""
        return [self._told(problem) for problem in self.task.problems(split, count)]

    def ask(self, text: str) -> Problem:
        """A problem of the task with its length."""
        return self._told(self.task.ask(text))

    def answer(self, problem: Problem, text: str) -> str | None:
        """What the task finds as the answer."""
        return self.task.answer(_without(problem), text)

    def check(self, problem: Problem, text: str) -> Verdict:
        """The verdict of the task."""
        return self.task.check(_without(problem), text)

    async def verify(self, problem: Problem, text: str) -> Verdict:
        """The verdict of the task."""
        return await self.task.verify(_without(problem), text)

    def _told(self, problem: Problem) -> Problem:
        length = random.Random(f"length {problem.id} {problem.prompt}").choice(self.lengths)
        own = {"prompt": problem.prompt, "data": dict(problem.data)}
        told = self.instruction.replace("{length}", str(length))
        return replace(problem, prompt=problem.prompt + told, data={**problem.data, "length": length, _WITHOUT: own})


def _without(problem: Problem) -> Problem:
    """The problem as the task knows it."""
    own: Mapping[str, Any] | None = problem.data.get(_WITHOUT)
    return problem if own is None else replace(problem, prompt=own["prompt"], data=own["data"])
