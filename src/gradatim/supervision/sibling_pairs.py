"""Pairs of siblings: of two steps after the same prefix, which is better."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import ClassVar, Literal

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.pairing import PairsOfSteps
from gradatim.supervision.rows import preference_rows
from gradatim.supervision.terms import Term
from gradatim.tree import Node, Tree


@part
class SiblingPairs(PairsOfSteps, Construction):
    """Siblings whose values differ (MCTS-DPO, Xie et al., 2024, arXiv:2405.00451).

    Both steps follow the same prefix, so that only the step itself is compared. Pairs come by parent in the order of
    ``tree.nodes``, then widest gap first, then in the order of the children. Of equal values, the earlier child is the
    best or worst.
    """

    what: ClassVar[str] = "pairs of steps"
    groups: ClassVar[int] = 2
    has_targets: ClassVar[bool] = True
    rows = staticmethod(preference_rows)

    pairing: Literal["best_worst", "all"] = "best_worst"
    """`best_worst` pairs the best sibling with the worst, `all` any two siblings."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        for parent in tree.nodes:
            valued = self.valued(parent.children)
            if self.pairing == "best_worst":
                valued = self._ends(valued)
            yield from self.widest(self.ordered(first, second) for first, second in combinations(valued, 2))

    def _ends(self, nodes: list[Node]) -> list[Node]:
        """The best and the worst node, if there are two."""
        if len(nodes) < 2:
            return []
        best = max(nodes, key=lambda node: node.scores[self.value])
        worst = min((node for node in nodes if node is not best), key=lambda node: node.scores[self.value])
        return [best, worst]
