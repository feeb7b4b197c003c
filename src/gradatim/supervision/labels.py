"""Step labels: what each step of a tree is worth, as training targets for process reward models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradatim.tree import EndReason, Node, Tree


@dataclass(frozen=True, slots=True)
class StepLabel:
    """A step and its label.

    Attributes:
        node: the step.
        label: from 0 (bad) to 1 (good).
        weight: how much it counts in a loss.
    """

    node: Node
    label: float
    weight: float = 1.0


def step_labels(
    tree: Tree,
    *,
    value: str = "rollouts",
    kind: Literal["soft", "hard"] = "soft",
    threshold: float = 0.0,
    min_count: int = 1,
) -> list[StepLabel]:
    """Label the steps of a tree by their estimated values (Math-Shepherd, Wang et al., 2023, arXiv:2312.08935).

    A soft label is the value itself: the share of solutions from here that are right. A hard label is 1 if the value
    is above ``threshold``, else 0; with threshold 0 a step is good if any solution from it was right.

    Args:
        tree: a tree with values.
        value: the key in ``node.scores`` (see :func:`has_value`).
        kind: soft or hard.
        threshold: of hard labels.
        min_count: rollouts or visits that a value must rest on.

    Returns:
        One label per step that has such a value, in the order of ``tree.nodes``; each step once, however many
        solutions share it.
    """
    return [
        StepLabel(node, node.scores[value] if kind == "soft" else float(node.scores[value] > threshold))
        for node in tree.nodes[1:]
        if has_value(node, value, min_count)
    ]


def has_value(node: Node, value: str, min_count: int = 1) -> bool:
    """Whether a node has a value that can be learned from.

    It needs ``node.scores[value]``, and at least ``min_count`` in ``node.counts[value]`` unless the value is exact: a
    step that is not open has the verifier's value, and a score without a count is no estimate. A step that the budget
    cut off is a fragment that nothing should be learned from.
    """
    if value not in node.scores or node.step.end is EndReason.BUDGET:
        return False
    return not node.open or node.counts.get(value, min_count) >= min_count
