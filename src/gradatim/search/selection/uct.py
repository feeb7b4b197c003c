"""UCT: the highest upper confidence bound of the value."""

from __future__ import annotations

import math

from pydantic import NonNegativeFloat

from gradatim.part import part
from gradatim.search.selection.base import Descent, most_promising
from gradatim.search.tree_state import TreeState
from gradatim.tree import Node


@part
class Uct(Descent):
    """UCT: the child with the highest upper confidence bound of its value (Kocsis and Szepesvári, 2006)."""

    exploration: NonNegativeFloat = 1.0
    """More goes oftener where little is known."""

    def choose(self, node: Node, state: TreeState) -> tuple[Node, str]:
        children, above = state.open_children(node), state.visits(node)
        promises = [uct(state.value(child), state.visits(child), above, self.exploration) for child in children]
        return most_promising(children, promises, "UCT", state)


def uct(value: float, visits: float, parent_visits: float, exploration: float) -> float:
    """``value + exploration * sqrt(ln(parent_visits) / visits)``; infinite without visits."""
    if not visits:
        return math.inf
    return value + exploration * math.sqrt(math.log(max(parent_visits, 1)) / visits)
