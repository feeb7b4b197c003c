"""Best-first: whatever is worth most, wherever it lies."""

from __future__ import annotations

from gradatim.part import part
from gradatim.search.selection.base import Queue
from gradatim.search.tree_state import TreeState
from gradatim.tree import Node


@part
class BestFirst(Queue):
    """Best-first: the step of the highest value, wherever in the tree it lies."""

    def priority(self, node: Node, state: TreeState) -> float:
        return state.value(node)

    def why(self, node: Node, state: TreeState) -> str:
        return f"value {state.value(node):.2f}"
