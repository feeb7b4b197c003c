"""First wrong steps against right ones in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.pairing import PairsOfSteps
from gradatim.supervision.rows import preference_rows
from gradatim.supervision.terms import Term
from gradatim.tree import Node, Tree


@part
class FirstErrorPairs(PairsOfSteps, Construction):
    """First wrong steps, each rejected in favour of its best right sibling (Lai et al., 2024, arXiv:2406.18629).

    A step is wrong if its value is at most ``threshold`` and right if it is above. A first wrong step has only right
    steps before it. Pairs come by parent in the order of ``tree.nodes``, then widest gap first.
    """

    what: ClassVar[str] = "pairs of steps"
    groups: ClassVar[int] = 2
    has_targets: ClassVar[bool] = True
    rows = staticmethod(preference_rows)

    threshold: float = 0.0
    """Up to which value a step is wrong."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        for parent in self._right_prefixes(tree):
            valued = self.valued(parent.children)
            best = max(valued, key=lambda child: child.scores[self.value], default=None)
            if best is not None and self._is_right(best):
                yield from self.widest(self.ordered(best, child) for child in valued if not self._is_right(child))

    def _is_right(self, node: Node) -> bool:
        return self.has_value(node) and node.scores[self.value] > self.threshold

    def _right_prefixes(self, tree: Tree) -> Iterator[Node]:
        """The root and all nodes that are right with every step before them, in the order of ``tree.nodes``."""
        right: set[Node] = set()
        for node in tree.nodes:
            if node.parent is None or (node.parent in right and self._is_right(node)):
                right.add(node)
                yield node
