"""Solutions whose steps are judged: what the benchmarks of step scoring have in common, and their trees."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradatim.errors import GradatimError
from gradatim.tree import EndReason, Node, Problem, Step, Tree

_STEP_END = "\n"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One solution, whole or partial, and what its benchmark knows of it.

    Attributes:
        id: names the record in reports and errors.
        problem: the question, as the benchmark words it for this very solution.
        steps: the texts of the steps, as the benchmark has them.
        labels: for each step whether it is right; ``None`` where the benchmark does not say.
        group: the part of the benchmark that the record belongs to: a subset, an error class, a use.
        question: shared by records that are compared with one another, such as the solutions of a best-of-n, and by no
            others.
        finished: whether the last step ends the solution.
        correct: whether the final answer is right, where that is known.
        answer: the final answer in a form that equal answers share, where that is known.
        author: who wrote the solution, or what kind of solution it is, where the benchmark tells them apart.
        prompt: what a model reads of the question before the steps; ``None`` for the question and a line's end.
        decides: whether the record only serves to choose a threshold.
    """

    id: str
    problem: str
    steps: tuple[str, ...]
    labels: tuple[bool | None, ...]
    group: str
    question: str
    finished: bool = True
    correct: bool | None = None
    answer: str | None = None
    author: str | None = None
    prompt: str | None = None
    decides: bool = False

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError(f"the record {self.id!r} has no steps")
        if len(self.labels) != len(self.steps):
            raise ValueError(f"the record {self.id!r} has {len(self.steps)} steps but {len(self.labels)} labels")

    @property
    def first_error(self) -> int | None:
        """Index of the first step that is labelled wrong; ``None`` where none is."""
        return next((index for index, label in enumerate(self.labels) if label is False), None)

    @property
    def digest(self) -> str:
        """Stands for all that a scorer reads: records of equal digest have equal scores."""
        read = [self.problem, self.steps, self.finished, *([] if self.prompt is None else [self.prompt])]
        return hashlib.sha256(json.dumps(read).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class RecordTree:
    """The records of one problem as paths of one tree.

    Attributes:
        tree: a tree of text steps.
        paths: for each record its index among all records, and the nodes of its steps.
    """

    tree: Tree
    paths: tuple[tuple[int, tuple[Node, ...]], ...]


def record_trees(records: Iterable[tuple[int, StepRecord]]) -> Iterator[RecordTree]:
    """One tree for each wording of a problem, in the order in which these first occur, made when it is asked for.

    Solutions that begin alike share their first nodes, so no scorer reads a step twice. A step is given a line's end
    unless it has one or ends its solution. The prompt is the record's own, else the problem with a line's end; the
    problem as it is stands in ``data["question"]``.

    Args:
        records: each with its index among all records.
    """
    by_problem: dict[tuple[str, str | None], list[tuple[int, StepRecord]]] = {}
    for index, record in records:
        by_problem.setdefault((record.problem, record.prompt), []).append((index, record))
    for (problem, prompt), members in by_problem.items():
        first = members[0][0]
        text = _ended(problem) if prompt is None else prompt
        tree = Tree(Problem(f"{members[0][1].id}/{first}", text, data={"question": problem}))
        yield RecordTree(tree, tuple((index, _add_path(tree, record)) for index, record in members))


def _add_path(tree: Tree, record: StepRecord) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for number, text in enumerate(record.steps, 1):
        last = record.finished and number == len(record.steps)
        step = Step((), text, end=EndReason.END_OF_TEXT) if last else Step((), _ended(text))
        nodes.append(tree.add(nodes[-1] if nodes else tree.root, step))
    return tuple(nodes)


def _ended(text: str) -> str:
    return text if text.endswith(_STEP_END) else text + _STEP_END


def check_scores(records: Sequence[StepRecord], scores: Sequence[Sequence[float]]) -> None:
    """Refuse scores that no benchmark can be measured with.

    Raises:
        GradatimError: unless there is one score for each step of each record, and each is a number.
    """
    if not records or len(scores) != len(records):
        raise GradatimError(f"there are scores of {len(scores)} solutions for {len(records)}; give them for each one")
    for record, values in zip(records, scores, strict=True):
        if len(values) != len(record.steps):
            raise GradatimError(f"the record {record.id!r} has {len(record.steps)} steps but {len(values)} scores")
        if any(math.isnan(value) for value in values):
            raise GradatimError(
                f"the record {record.id!r} has a score that is not a number; score it again with dtype='float32'",
                options=("dtype='float32'",),
            )


def sampled_questions(records: Sequence[StepRecord], limit: int, seed: int = 0) -> list[StepRecord]:
    """The records of ``limit`` questions of each group, drawn at random, in their order.

    What is compared stays together, and groups that share questions share those that are drawn where they can. Of
    questions with a wrong solution and of those without, as many are drawn as their shares say, and one of each where
    both occur and the limit allows it: published files have them in order, so that the first rows are of one kind.

    Args:
        records: all records.
        limit: so many questions of each group at most.
        seed: the same seed draws the same questions.
    """
    questions = list(dict.fromkeys(record.question for record in records))
    rank = dict(zip(questions, np.random.default_rng(seed).permutation(len(questions)).tolist(), strict=True))
    groups: dict[str, dict[str, bool]] = {}  # of each group's questions whether they have a wrong solution
    for record in records:
        kinds = groups.setdefault(record.group, {})
        judged = any(label is not None for label in record.labels)
        wrong = record.first_error is not None if judged else record.correct is False
        kinds[record.question] = kinds.get(record.question, False) or wrong
    chosen = {group: _drawn(kinds, limit, rank) for group, kinds in groups.items()}
    return [record for record in records if record.question in chosen[record.group]]


def _drawn(kinds: Mapping[str, bool], limit: int, rank: Mapping[str, int]) -> set[str]:
    """The questions of one group that are drawn."""
    ordered = sorted(kinds, key=rank.__getitem__)
    wrong, right = [each for each in ordered if kinds[each]], [each for each in ordered if not kinds[each]]
    count = round(limit * len(wrong) / len(ordered))
    if wrong and right and limit > 1:
        count = min(max(count, 1), limit - 1)
    return {*wrong[:count], *right[: limit - min(count, len(wrong))]}
