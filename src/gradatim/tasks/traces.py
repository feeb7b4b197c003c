"""A task whose solutions are written as searches, with marks that take steps back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gradatim.part import PartOf, part
from gradatim.tasks.base import Task, Verdict
from gradatim.text.backtracking import MARK, Mark, standing
from gradatim.text.boundaries.base import Boundary
from gradatim.tree import Problem


@part
class Traces(Task):
    """Another task, of whose solutions only the steps count that no mark takes back.

    What stands at the end is what is answered and verified (see :mod:`gradatim.text.backtracking`); a solution without
    a mark is one of the task itself. Since a search may write whole solutions and take them back, only the policy's end
    token ends one. Policies learn to write such solutions from the construction `stream_of_search`.
    """

    task: Annotated[Task, PartOf("tasks")]
    """The task that is searched."""
    mark: Mark = MARK
    """The step that takes the one before it back."""

    @property
    def boundary(self) -> Boundary:
        return self.task.boundary

    @property
    def files(self) -> tuple[Path, ...]:
        return self.task.files

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The problems of the task that is searched."""
        return self.task.problems(split, count)

    def answer(self, problem: Problem, text: str) -> str | None:
        """What the steps that stand answer."""
        return self.task.answer(problem, self.standing(text))

    def check(self, problem: Problem, text: str) -> Verdict:
        """The verdict on the steps that stand."""
        return self.task.check(problem, self.standing(text))

    async def verify(self, problem: Problem, text: str) -> Verdict:
        """The verdict on the steps that stand."""
        return await self.task.verify(problem, self.standing(text))

    def ask(self, text: str) -> Problem:
        """A problem of the task that is searched."""
        return self.task.ask(text)

    def standing(self, text: str) -> str:
        """The solution that a trace leaves standing."""
        return "".join(standing(self.boundary.split(text), self.mark))
