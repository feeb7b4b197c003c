"""What a task is: where problems come from, how text divides into steps, what a solution answers and if it is right."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from gradatim.event_loop import run_to_end, without_blocking
from gradatim.part import name_of
from gradatim.text.boundaries.base import Boundary
from gradatim.text.boundaries.delimiter import LINES
from gradatim.text.solution_end import NEVER, SolutionEnd
from gradatim.tree import Node, Problem, Tree, is_right

NO_REFERENCE = "the problem has no reference answer"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier found.

    Attributes:
        reward: 1.0 for a right solution, 0.0 for a wrong one; tasks may give values between. ``None`` where nobody can
            tell, since the problem has no reference answer.
        reason: why, in a few words that a person can act on. ``"correct"`` for a right solution.
        correct: whether the solution is right; every table counts by this. A verifier that does not say it means
            rewards above one half, and ``None`` where there is no reward.
    """

    reward: float | None
    reason: str
    correct: bool | None = None

    def __post_init__(self) -> None:
        if self.correct is None:
            object.__setattr__(self, "correct", is_right(self.reward))


def compare(reference: str | None, answer: str | None, nothing: str = "no final answer") -> Verdict:
    """The verdict on an answer: right if it is the reference answer, letter by letter.

    Args:
        reference: the right answer in its normal form; ``None`` where it is not known.
        answer: the answer in its normal form; ``None`` where there is none.
        nothing: the reason where there is no answer.
    """
    if answer is None:
        return Verdict(None if reference is None else 0.0, nothing)
    if reference is None:
        return Verdict(None, NO_REFERENCE)
    return Verdict(1.0, "correct") if answer == reference else wrong(answer, reference)


def wrong(answer: str, reference: str) -> Verdict:
    """The verdict on an answer that is not the reference answer."""
    return Verdict(0.0, f"wrong answer: {answer} instead of {reference}")


class Task(ABC):
    """A source of problems that knows what their solutions answer and which are right.

    A subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    What a task reads or makes of its options is made when it is first needed, as a :class:`functools.cached_property`;
    so making one is quick and touches no file. What the options alone tell to be wrong is refused at once, in
    ``__post_init__``.
    """

    @property
    def name(self) -> str:
        """What its problems and messages call the task."""
        return name_of(self)

    @property
    def boundary(self) -> Boundary:
        """What ends a step, in what a policy writes and in whole solutions."""
        return LINES

    @property
    def solution_end(self) -> SolutionEnd:
        """What ends a solution beside the policy's end token; with none of it, a policy that does not end its answers
        runs into its limits."""
        return NEVER

    @property
    def on_command_line(self) -> str | None:
        """How ``gradatim solve --task`` names the task; ``None`` if no problem of it can be typed."""
        return None if any(each.default is MISSING for each in fields(self)) else name_of(self)  # type: ignore[arg-type]

    @property
    def files(self) -> tuple[Path, ...]:
        """Where it reads what its options do not say: files and folders, which need not be there (a hub's id)."""
        return ()

    @abstractmethod
    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of a split (``"train"``, ``"validation"``, ``"test"``), always the same.

        Raises:
            GradatimError: if there is no such split, or the problems cannot be read or made.
        """

    @abstractmethod
    def answer(self, problem: Problem, text: str) -> str | None:
        """The final answer of a solution, in the form that equal answers share; ``None`` where it has none.

        A search may vote by it, so it never looks at the reference. Deterministic, and never raises on any text.
        """

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judge a whole solution: by default, whether its answer is the problem's. It may block, as one does that runs
        programs. Deterministic, and never raises on any text."""
        return compare(problem.answer, self.answer(problem, text))

    async def verify(self, problem: Problem, text: str) -> Verdict:
        """The truth about a whole solution, which no search asks for: :meth:`check`, while the event loop goes on.

        A task whose verifier is a service of its own waits for it here instead.
        """
        return await without_blocking(self.check, problem, text)

    def ask(self, text: str) -> Problem:
        """A problem as a person types it; its reference answer is not known unless the task can tell it.

        Raises:
            GradatimError: if the text is no problem of this task.
        """
        return Problem("question", text)


def grade(tree: Tree, task: Task) -> None:
    """Grade all leaves of a tree (see :func:`grade_nodes`)."""
    run_to_end(grade_nodes(tree.leaves(), task))


async def grade_nodes(nodes: Iterable[Node], task: Task) -> None:
    """Write reward, answer and the verdict's reason (``notes["verdict"]``) to leaves that are not graded yet.

    A cut-off leaf gets reward 0, an open one nothing. A solution of a problem without a reference answer gets no
    reward: nothing says that it is wrong.

    Raises:
        Exception: the first that the task raises; the others are not waited for.
    """
    waiting = [node for node in dict.fromkeys(nodes) if not node.open and node.reward is None]
    asked = [node for node in waiting if node.finished and not node.answered]
    answers = await without_blocking(lambda: [task.answer(node.tree.problem, node.text) for node in asked])
    for node, answer in zip(asked, answers, strict=True):
        node.answer = answer
    try:
        async with asyncio.TaskGroup() as group:
            for node in waiting:
                group.create_task(_grade(node, task))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _grade(node: Node, task: Task) -> None:
    if not node.finished:
        node.reward = 0.0
        return
    verdict = await task.verify(node.tree.problem, node.text)
    node.reward, node.correct = verdict.reward, verdict.correct
    node.notes["verdict"] = verdict.reason
