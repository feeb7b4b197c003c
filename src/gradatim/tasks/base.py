"""What a task is: where problems come from, how text divides into steps, how an answer is verified."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from gradatim.event_loop import without_blocking
from gradatim.part import name_of
from gradatim.tasks.steps import split_at
from gradatim.text.solution_end import NEVER, SolutionEnd
from gradatim.tree import Node, Problem, Tree, is_right

NO_REFERENCE = "the problem has no reference answer"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier found.

    Attributes:
        reward: 1.0 for a right solution, 0.0 for a wrong one; tasks may give values between. ``None`` where nobody can
            tell, since the problem has no reference answer.
        answer: the answer that was extracted, in a form that equal answers share; ``None`` where there is none.
        reason: why, in a few words that a person can act on. ``"correct"`` for a right solution.
        correct: whether the solution is right; every table counts by this. A verifier that does not say it means
            rewards above one half, and ``None`` where there is no reward.
    """

    reward: float | None
    answer: str | None
    reason: str
    correct: bool | None = None

    def __post_init__(self) -> None:
        if self.correct is None:
            object.__setattr__(self, "correct", is_right(self.reward))


class Task(ABC):
    """A source of problems with a verifier; a subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    What a task reads or makes of its options is made when it is first needed, as a :class:`functools.cached_property`;
    so making one is quick and touches no file. What the options alone tell to be wrong is refused at once, in
    ``__post_init__``.
    """

    @property
    def name(self) -> str:
        """What its problems and messages call the task."""
        return name_of(self)

    @property
    def step_end(self) -> tuple[str, ...]:
        """The strings that end a step in the policy's text."""
        return ("\n",)

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

    def split_steps(self, text: str) -> list[str]:
        """Divide a whole solution into steps, after each of ``step_end``; joined again they are ``text``."""
        return split_at(text, self.step_end)

    @abstractmethod
    def verify(self, problem: Problem, text: str) -> Verdict:
        """Judge a whole solution. Deterministic, and never raises on any text."""

    def ask(self, text: str) -> Problem:
        """A problem as a person types it; its reference answer is not known unless the task can tell it.

        Raises:
            GradatimError: if the text is no problem of this task.
        """
        return Problem("question", text)


def grade(tree: Tree, task: Task) -> None:
    """Write the verifier's verdict and the extracted answer to every finished leaf; cut-off leaves get reward 0."""
    for leaf in tree.leaves():
        grade_node(leaf, task)


async def grade_without_blocking(nodes: Iterable[Node], task: Task) -> None:
    """As :func:`grade_node` for each of ``nodes``, while the event loop goes on.

    A verification may wait for a sandbox or for computer algebra.
    """
    for node in nodes:
        if not node.open and node.reward is None:
            await without_blocking(grade_node, node, task)


def grade_node(node: Node, task: Task) -> None:
    """Grade one leaf if it is closed and not graded yet.

    A solution of a problem without a reference answer gets its answer and no reward: nothing says that it is wrong.
    """
    if node.open or node.reward is not None:
        return
    if node.finished:
        verdict = task.verify(node.tree.problem, node.text)
        node.reward, node.correct, node.answer = verdict.reward, verdict.correct, verdict.answer
    else:
        node.reward = 0.0
