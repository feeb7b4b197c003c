"""Exact truth about partial solutions, for tasks where it can be computed: two truths, which are not the same.

A partial solution may be right in every step and lead nowhere, as a legal move that puts the target out of reach; or
hold a wrong step that a later one makes up for. A task has the truths that it can compute, and every figure says which
of them it is measured against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from gradatim.tree import Problem


@runtime_checkable
class Reachability(Protocol):
    """Whether a partial solution can still succeed."""

    def reachable(self, problem: Problem, text: str) -> bool:
        """Whether some continuation of the partial (or whole) solution ``text`` is right."""
        ...


@runtime_checkable
class StepTruth(Protocol):
    """Which steps are right."""

    def first_error(self, problem: Problem, steps: Sequence[str]) -> int | None:
        """Index of the first wrong step, or ``None``."""
        ...


TruthName = Literal["reachable", "steps_right"]

OF_STATES: dict[TruthName, str] = {
    "reachable": "can still reach the answer",
    "steps_right": "have no wrong step",
}
"""What a truth says of good partial solutions."""
OF_STEPS: dict[TruthName, str] = {
    "reachable": "can still reach the answer",
    "steps_right": "are right, and so are all steps before them",
}
"""What it says of the last steps of good partial solutions."""


@dataclass(frozen=True, slots=True)
class StateTruth:
    """What is true of a partial solution of a task.

    Attributes:
        name: which truth it is.
        holds: whether it holds of a problem and a partial solution's text.
    """

    name: TruthName
    holds: Callable[[Problem, str], bool]


def state_truth(task: Any) -> StateTruth | None:
    """The truth by which a task's partial solutions are called good: whether they can still succeed, or, where that is
    not known, whether all their steps are right; ``None`` where neither is known."""
    if isinstance(task, Reachability):
        return StateTruth("reachable", task.reachable)
    if isinstance(task, StepTruth):
        return StateTruth("steps_right", lambda problem, text: _all_right(task, problem, text))
    return None


def _all_right(task: Any, problem: Problem, text: str) -> bool:
    return task.first_error(problem, task.boundary.split(text)) is None
