"""Scores of steps beside labels of them, as trees have both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gradatim.errors import GradatimError
from gradatim.supervision.values import has_value
from gradatim.tasks.truth import StateTruth, state_truth
from gradatim.tree import Node, Tree

CORRECT = "correct"
"""The label of finished solutions by their verdicts."""
EXACT = "exact"
"""The label of steps by the task's exact truth."""


class LabelledScores(NamedTuple):
    """Steps that have a score or a label; ``None`` where one of them is missing.

    Attributes:
        scores, labels: of each step.
        trees: the number of the tree that each is in.
    """

    scores: list[float | None]
    labels: list[float | None]
    trees: list[int]


def labelled_scores(trees: Iterable[Tree], scorer: str, label: str, task: Any = None) -> LabelledScores:
    """The scores of steps, and their labels.

    Args:
        trees: trees with scores.
        scorer: the name of the scores.
        label: the name of other scores (a value from rollouts, an imported label), ``"correct"`` for whether a
            finished solution is right, or ``"exact"`` for the truth that the task knows of partial solutions.
        task: of the trees, which ``"exact"`` asks.

    Raises:
        GradatimError: if the task knows no such truth, or nothing has such a score.
    """
    truth = state_truth(task) if label == EXACT else None
    if label == EXACT and truth is None:
        raise GradatimError("the task of these trees knows no exact truth of steps; name another label, such as value")
    found = LabelledScores([], [], [])
    for number, tree in enumerate(trees):
        for node in tree.nodes[1:]:
            score, known = node.scores.get(scorer), _label(node, label, truth)
            if score is not None or known is not None:
                found.scores.append(score)
                found.labels.append(known)
                found.trees.append(number)
    for name, values in ((scorer, found.scores), (label, found.labels)):
        if all(each is None for each in values):
            raise GradatimError(f"no step of these trees has {name!r}; see what they have with 'gradatim show'")
    return found


def _label(node: Node, label: str, truth: StateTruth | None) -> float | None:
    if truth is not None:
        return float(truth.holds(node.tree.problem, node.text))
    if label == CORRECT:
        return None if not node.finished or node.correct is None else float(node.correct)
    return node.scores[label] if has_value(node, label) else None
