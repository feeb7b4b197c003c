"""Worked solutions that a task has of its own: generated with its problems, or read with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gradatim.event_loop import run_to_end
from gradatim.tasks.base import Task
from gradatim.tree import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Demonstration = tuple[Problem, str]


@runtime_checkable
class Demonstrator(Protocol):
    """A task that can show right solutions to as many problems as one wants."""

    def demonstrations(self, split: str) -> Iterator[Demonstration]:
        """Different problems of ``split``, each with one right solution, in the order of ``problems``."""
        ...


@runtime_checkable
class Teacher(Demonstrator, Protocol):
    """A task that a model can be trained on from scratch."""

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of such a model; the same task gives the same one."""
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
    shown = ((problem, problem.data.get("solution")) for problem in {each.id: each for each in order}.values())
    return run_to_end(_right(task, ((problem, text) for problem, text in shown if isinstance(text, str)), count))


async def _right(task: Task, found: Iterable[Demonstration], count: int) -> list[Demonstration]:
    right: list[Demonstration] = []
    for problem, solution in found:
        if len(right) == count:
            break
        if (await task.verify(problem, solution)).correct is not False:
            right.append((problem, solution))
    return right
