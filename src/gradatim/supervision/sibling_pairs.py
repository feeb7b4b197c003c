"""Pairs of siblings: of two steps after the same prefix, which is better."""

from __future__ import annotations

import random
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

    With values that are rollouts' or a search's and the objective `step_dpo`, it is MCTS-DPO, which smooths labels by
    ``visits``; with the objective's `margin`, it is Step-APO (Wang et al., 2024, arXiv:2409.08642), since the
    difference of two siblings' values is that of their advantages. Genius (Xu et al., 2025, arXiv:2504.08672) compares
    the best with any other one (`best_other`), by the values `foresight`.
    """

    what: ClassVar[str] = "pairs of steps"
    groups: ClassVar[int] = 2
    has_targets: ClassVar[bool] = True
    rows = staticmethod(preference_rows)

    pairing: Literal["best_worst", "best_other", "all"] = "best_worst"
    """`best_worst` pairs the best sibling with the worst, `best_other` with one of the others at random, `all` any two
    siblings."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        for parent in tree.nodes:
            valued = self.valued(parent.children)
            if self.pairing != "all":
                valued = self._two(valued, random.Random(f"{tree.seed} {tree.problem.id} {parent.id} other"))
            yield from self.widest(self.ordered(first, second) for first, second in combinations(valued, 2))

    def _two(self, nodes: list[Node], generator: random.Random) -> list[Node]:
        """The best node and the worst or another one, if there are two."""
        if len(nodes) < 2:
            return []
        best = max(nodes, key=lambda node: node.scores[self.value])
        others = [node for node in nodes if node is not best]
        if self.pairing == "best_other":
            return [best, generator.choice(others)]
        return [best, min(others, key=lambda node: node.scores[self.value])]
