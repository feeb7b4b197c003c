"""Worked solutions that a task has of its own: generated with its problems, or read with them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Protocol, runtime_checkable

from gradatim.tasks.base import Task
from gradatim.tree import Problem

Demonstration = tuple[Problem, str]


@runtime_checkable
class Demonstrator(Protocol):
    """A task that can show right solutions to as many problems as one wants."""

    def demonstrations(self, split: str) -> Iterator[Demonstration]:
        """Different problems of ``split``, each with one right solution, in the order of ``problems``."""
        ...


def worked_solutions(task: Task, split: str, count: int, *, behind: int = 0) -> list[Demonstration]:
    """At most ``count`` problems of a split, each with a worked solution that the task's own verifier accepts.

    Tasks that generate their problems generate these too; of others, a problem's solution is ``data["solution"]``.

    Args:
        task: where they come from.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        count: how many are wanted; there may be fewer.
        behind: this many problems of the split have another use: the problems behind them are taken, and of the first
            ones the last, only as far as there are not enough others.

    Raises:
        GradatimError: if the problems cannot be read.
    """
    if isinstance(task, Demonstrator):
        return list(islice(task.demonstrations(split), behind, behind + count))
    problems = task.problems(split)
    order = [*problems[behind:], *reversed(problems[:behind])]
    found = (
        (problem, solution)
        for problem in {problem.id: problem for problem in order}.values()
        if isinstance(solution := problem.data.get("solution"), str)
        and task.verify(problem, solution).correct is not False
    )
    return list(islice(found, count))
