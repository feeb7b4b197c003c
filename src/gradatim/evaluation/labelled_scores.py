"""Scores of steps beside labels of them, as trees have both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gradatim.errors import GradatimError
from gradatim.supervision.values import has_value
from gradatim.tasks.truth import StateTruth, state_truth
from gradatim.tree import Node, Tree

CORRECT = "correct"
"""The label of finished solutions by their verdicts."""
EXACT = "exact"
"""The label of steps by the task's exact truth."""


def labelled_scores(
    trees: Iterable[Tree], scorer: str, label: str, task: Any = None
) -> tuple[list[float | None], list[float | None]]:
    """The scores of steps, and their labels; ``None`` where a step that has one lacks the other.

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
    scores: list[float | None] = []
    labels: list[float | None] = []
    for tree in trees:
        for node in tree.nodes[1:]:
            score, known = node.scores.get(scorer), _label(node, label, truth)
            if score is not None or known is not None:
                scores.append(score)
                labels.append(known)
    for name, found in ((scorer, scores), (label, labels)):
        if all(each is None for each in found):
            raise GradatimError(f"no step of these trees has {name!r}; see what they have with 'gradatim show'")
    return scores, labels


def _label(node: Node, label: str, truth: StateTruth | None) -> float | None:
    if truth is not None:
        return float(truth.holds(node.tree.problem, node.text))
    if label == CORRECT:
        return None if not node.finished or node.correct is None else float(node.correct)
    return node.scores[label] if has_value(node, label) else None
