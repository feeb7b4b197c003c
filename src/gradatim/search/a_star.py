"""A* search: expand what promises the least cost, of what was done and of what is still to come."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import PositiveInt

from gradatim.part import PartOf, part
from gradatim.search.selection.a_star import AStar
from gradatim.search.tree_search import TreeSearch
from gradatim.tree import Node, Tree


@part
class AStarSearch(TreeSearch):
    """A* search by the cost so far and the cost to come (Q*: Wang et al., 2024, arXiv:2406.14283).

    It ends when a finished solution costs less than all that could be expanded. What costs are is said by ``selection``
    (:class:`gradatim.search.selection.a_star.AStar`); ToolChain* (arXiv:2310.13227) and A*-decoding (arXiv:2505.13672)
    are settings of it.
    """

    title: ClassVar[str] = "A*"
    key: ClassVar[str] = "a_star"

    selection: Annotated[AStar, PartOf("search/selection")] = AStar()
    wave: PositiveInt = 1

    def choose(self, tree: Tree, scorer: str | None) -> Node | None:
        """The finished solution of the least cost, unless ``choose_by`` says otherwise."""
        if self.choose_by is not None or scorer is None:
            return super().choose(tree, scorer)
        state = self._state(tree, scorer)
        found = [leaf for leaf in tree.solutions() if state.is_valued(leaf)]
        return max(found, key=lambda leaf: self.selection.priority(leaf, state), default=None)
