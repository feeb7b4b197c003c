"""What tasks share that generate their problems without end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from gradatim.errors import GradatimError
from gradatim.tree import Problem


def first_problems(demonstrations: Iterator[tuple[Problem, str]], count: int | None, task: str) -> list[Problem]:
    """The problems of the first ``count`` demonstrations.

    Raises:
        GradatimError: if there is no count or it is not positive.
    """
    if count is None:
        raise GradatimError(f"{task} generates problems without end: say how many (count)")
    if count < 1:
        raise GradatimError(f"ask for at least one problem of {task}, got {count}")
    return [problem for problem, _ in islice(demonstrations, count)]
