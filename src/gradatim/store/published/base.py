"""What all published formats share: rows into trees, and trees into labelled paths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar, Self

from gradatim.part import name_of, options
from gradatim.records import MalformedRecordError, Record
from gradatim.store.published.answers import final_answer
from gradatim.store.published.source_rows import note_solution
from gradatim.tree import EndReason, Node, Problem, Step, Tree

KIND = "store/published"
"""Of the parts that are formats."""
STEP_END = "\n"
"""What stands between two steps of a tree. Published steps come without it; it is added to every step that a further
one can follow, and taken off again when steps are written."""

LABEL = "label"
"""The score of hard labels and of human judgements."""
VALUE = "value"
"""The score of soft labels: estimated shares of right solutions."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a row asks; rows with the same prompt belong to one problem.

    Attributes:
        text: the bare question.
        answer: the reference answer where the row tells it.
        data: what else the row says of the problem.
        line_end: whether the prompt is the question and a line end, or the question alone.
    """

    text: str
    answer: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    line_end: bool = True

    @property
    def prompt(self) -> str:
        """What solutions continue."""
        return self.text + STEP_END if self.line_end else self.text

    @property
    def key(self) -> str:
        """What tells problems apart: the question, and of a prompt without a line end that it has none."""
        return self.text if self.line_end else f"{self.text}\0"


@options
class PublishedFormat(ABC):
    """A published layout of process supervision; a subclass is a part (:func:`gradatim.part.part`) in a file of its
    own. No row has the fields of two of them.

    Attributes:
        score: the key in ``node.scores`` that its labels are read into.
        merges: whether what its rows say of one question may stand in one tree.
    """

    score: ClassVar[str] = LABEL
    merges: ClassVar[bool] = True

    value: str | None = None
    """The score that is written; `null` takes the one that a tree's own rows were read into, else the one that the
    format is read into, else `value` or `label`, whichever the steps of a tree have."""

    @abstractmethod
    def matches(self, row: Record) -> bool:
        """Whether a row has the fields of this format."""

    def informed(self, rows: Iterable[Record]) -> Self:
        """The format as the rows of one source have it, where a single row does not show what it means.

        Args:
            rows: all rows of the source, malformed ones among them; gone through at most once.
        """
        return self

    @abstractmethod
    def question(self, row: Record) -> Question:
        """What a row asks.

        Raises:
            MalformedRecordError: if it does not say so.
        """

    @abstractmethod
    def read(self, row: Record, builder: TreeBuilder) -> None:
        """Add a row to the tree of its question, whole or not at all.

        Raises:
            MalformedRecordError: if the row does not follow the format; the tree is then as it was.
        """

    @abstractmethod
    def rows(self, tree: Tree, value: str) -> Iterator[dict[str, Any]]:
        """The rows of a tree, of its labels ``node.scores[value]``."""


@options
class LabelFormat(PublishedFormat):
    """A format that calls steps good or bad."""

    threshold: float = 0.5
    """A step is written as good if its score is above this."""


class TreeBuilder:
    """Makes one tree of all rows of a question.

    Equal steps at one place are one node, as in any tree. Where rows judge it differently, its label is the mean.

    Args:
        problem_id: the tree's problem id.
        question: what is asked; ``problem.data["question"]`` keeps it bare.
    """

    def __init__(self, problem_id: str, question: Question) -> None:
        data = {**question.data, "question": question.text}
        self.tree = Tree(Problem(problem_id, question.prompt, question.answer, data))
        self._judgements: dict[tuple[int, str], list[float]] = {}
        self._rewards: dict[int, list[float]] = {}

    def add(self, parent: Node, text: str, *, finished: bool = False) -> Node:
        """Add a step as published, without its boundary."""
        step = Step((), text, end=EndReason.END_OF_TEXT) if finished else Step((), text + STEP_END)
        return self.tree.add(parent, step)

    def judge(self, node: Node, name: str, value: float) -> None:
        """Count one judgement of a step towards its score ``name``."""
        self._judgements.setdefault((node.id, name), []).append(value)

    def grade(self, node: Node, reward: float | None) -> None:
        """Note the answer that a finished step states, and count one verdict on it."""
        node.answer = final_answer(node.step.text)
        if reward is not None:
            self._rewards.setdefault(node.id, []).append(reward)

    def add_solution(
        self,
        steps: Sequence[str],
        labels: Sequence[float | None],
        *,
        format: PublishedFormat,
        name: str,
        finished: bool,
        other_fields: Mapping[str, Any],
    ) -> None:
        """Add one labelled solution, and keep what its row said to write it again.

        The label of a finished solution's last step is the verdict on its answer.
        """
        node = self.tree.root
        for place, (text, label) in enumerate(zip(steps, labels, strict=True), 1):
            node = self.add(node, text, finished=finished and place == len(steps))
            if label is not None:
                self.judge(node, name, label)
        if node.finished:
            self.grade(node, labels[-1])
        note_solution(self.tree, name_of(format), node, labels, name=name, other_fields=other_fields)

    def build(self) -> Tree:
        """The tree, with the means of all judgements written to its nodes."""
        for (node_id, name), values in self._judgements.items():
            self.tree.nodes[node_id].scores[name] = fmean(values)
        for node_id, rewards in self._rewards.items():
            self.tree.nodes[node_id].reward = fmean(rewards)
        return self.tree


def question_text(tree: Tree) -> str:
    """The bare question of a tree."""
    return str(tree.problem.data.get("question", tree.problem.prompt.removesuffix(STEP_END)))


def step_text(node: Node) -> str:
    """A step as it is published: without its boundary, with what an environment wrote after it if steps follow."""
    text = node.step.text_with_observation if node.children else node.step.text
    return text.removesuffix(STEP_END) if node.open else text


def optional_text(row: Record, name: str) -> str | None:
    """A field that may hold text, or a number that is meant as text.

    Raises:
        MalformedRecordError: if it holds something else.
    """
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise MalformedRecordError(f"has no text in the field {name!r}")


def share(value: object, what: str) -> float:
    """A label that must be a number from 0 to 1, or a truth value.

    Raises:
        MalformedRecordError: if it is not.
    """
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    raise MalformedRecordError(f"has {what} {value!r}, which is not between 0 and 1")


def sign(value: object) -> float:
    """A label that must be "+" or "-".

    Raises:
        MalformedRecordError: if it is neither.
    """
    mark = value.strip() if isinstance(value, str) else value
    if mark not in ("+", "-"):
        raise MalformedRecordError(f"has the label {value!r}, which is neither '+' nor '-'")
    return 1.0 if mark == "+" else 0.0


def holds_a_fraction(rows: Iterable[Record], name: str) -> bool:
    """Whether the lists in a field of some row hold a floating-point number: the labels of the source are then shares.

    A single row may not show it, since a share of 1 is often written as the whole number.
    """
    lists = (value for row in rows if isinstance(value := row.get(name), list))
    return any(isinstance(label, float) for labels in lists for label in labels)
