"""Preference pairs: of two steps or solutions of a tree, which is better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Literal

from gradatim.supervision.labels import has_value
from gradatim.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class StepPair:
    """Two nodes of one tree of which one is preferred.

    Attributes:
        chosen: the better one.
        rejected: the worse one.
        weight: how much the pair counts in a loss.
        margin: by how much the better one is better, in units of the value they were compared by.
    """

    chosen: Node
    rejected: Node
    weight: float = 1.0
    margin: float = 0.0


def sibling_pairs(
    tree: Tree,
    *,
    value: str = "rollouts",
    min_gap: float = 0.0,
    mode: Literal["best_worst", "all"] = "best_worst",
    max_pairs_per_parent: int | None = None,
    min_count: int = 1,
) -> list[StepPair]:
    """Pairs of siblings whose values differ by at least ``min_gap`` (and differ at all).

    Both steps follow the same prefix, so that only the step itself is compared (step-level preferences as in
    MCTS-DPO, Xie et al., 2024, arXiv:2405.00451).

    Args:
        tree: a tree with values.
        value: the key in ``node.scores`` (see :func:`gradatim.supervision.labels.has_value`).
        min_gap: how much better the chosen step must be.
        mode: ``"best_worst"`` pairs the best sibling with the worst; ``"all"`` pairs any two.
        max_pairs_per_parent: keeps those of the widest gap.
        min_count: rollouts or visits that a value must rest on.

    Returns:
        By parent in the order of ``tree.nodes``, then widest gap first, then in the order of the children. Of equal
        values, the earlier child is the best or worst.
    """
    pairs: list[StepPair] = []
    for parent in tree.nodes:
        valued = [child for child in parent.children if has_value(child, value, min_count)]
        if mode == "best_worst":
            valued = _ends(valued, value)
        ordered = [_ordered(first, second, value) for first, second in combinations(valued, 2)]
        wide = [pair for pair in ordered if pair.margin > 0 and pair.margin >= min_gap]
        pairs.extend(sorted(wide, key=lambda pair: -pair.margin)[:max_pairs_per_parent])
    return pairs


def step_dpo_pairs(
    tree: Tree, *, value: str = "rollouts", threshold: float = 0.0, min_count: int = 1
) -> list[StepPair]:
    """First wrong steps against right ones in their place (Step-DPO, Lai et al., 2024, arXiv:2406.18629).

    A step is wrong if its value is at most ``threshold`` and right if it is above. A first wrong step has only right
    steps before it; it is rejected in favour of its best right sibling, where there is one.

    Args:
        tree: a tree with values.
        value: the key in ``node.scores`` (see :func:`gradatim.supervision.labels.has_value`).
        threshold: up to which value a step is wrong.
        min_count: rollouts or visits that a value must rest on.

    Returns:
        One pair per first wrong step that has a right sibling, in the order of ``tree.nodes``.
    """
    pairs: list[StepPair] = []
    for parent in _right_prefixes(tree, value, threshold, min_count):
        valued = [child for child in parent.children if has_value(child, value, min_count)]
        best = max(valued, key=lambda child: child.scores[value], default=None)
        if best is None or best.scores[value] <= threshold:
            continue
        wrong = [child for child in valued if child.scores[value] <= threshold]
        pairs.extend(_ordered(best, child, value) for child in wrong)
    return pairs


def path_pairs(tree: Tree, *, max_pairs: int | None = None) -> list[StepPair]:
    """Right against wrong whole solutions: DPO without steps (Rafailov et al., 2023, arXiv:2305.18290).

    The nodes of a pair are leaves; what is compared begins where their paths part. Solutions that were cut off or not
    graded are not used.

    Args:
        tree: a graded tree.
        max_pairs: how many pairs at most; solutions are used evenly, none again before all of its kind were.

    Returns:
        Pairs in a fixed order.
    """
    right = [leaf for leaf in tree.solutions() if leaf.correct]
    wrong = [leaf for leaf in tree.solutions() if leaf.correct is False]
    return [
        StepPair(chosen, rejected, margin=(chosen.reward or 0.0) - (rejected.reward or 0.0))
        for chosen, rejected in islice(_round_robin(right, wrong), max_pairs)
    ]


def _ends(nodes: Sequence[Node], value: str) -> list[Node]:
    """The best and the worst node, if there are two."""
    if len(nodes) < 2:
        return []
    best = max(nodes, key=lambda node: node.scores[value])
    worst = min((node for node in nodes if node is not best), key=lambda node: node.scores[value])
    return [best, worst]


def _ordered(first: Node, second: Node, value: str) -> StepPair:
    gap = first.scores[value] - second.scores[value]
    return StepPair(first, second, margin=gap) if gap >= 0 else StepPair(second, first, margin=-gap)


def _right_prefixes(tree: Tree, value: str, threshold: float, min_count: int) -> Iterator[Node]:
    """The root and all nodes that are right together with every step before them, in the order of ``tree.nodes``."""
    right: set[Node] = set()
    for node in tree.nodes:
        if node.parent is None or (
            node.parent in right and has_value(node, value, min_count) and node.scores[value] > threshold
        ):
            right.add(node)
            yield node


def _round_robin(first: Sequence[Node], second: Sequence[Node]) -> Iterator[tuple[Node, Node]]:
    """Every combination once, in an order that uses the elements of each side evenly."""
    if first and second:
        cycle = math.lcm(len(first), len(second))  # after so many pairs the same ones would return: shift by one
        for turn in range(len(first) * len(second)):
            yield first[turn % len(first)], second[(turn + turn // cycle) % len(second)]
