"""The contract of a selection: which step a tree search expands next."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import PositiveInt

from gradatim.part import options
from gradatim.search.tree_state import TreeState
from gradatim.tree import Node


class Choice(NamedTuple):
    """What a selection says.

    Attributes:
        node: the node to expand, or on the way to it; ``None`` if none is worth it.
        why: in a few words.
    """

    node: Node | None
    why: str


class Selection(ABC):
    """Which step is expanded next; a subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    It has no state of its own: what it says follows from the tree, so that a search can be taken up again.
    """

    @property
    def patience(self) -> int:
        """Expansions of one node in vain after which it is not expanded again; with 0 it is expanded once."""
        return 0

    @abstractmethod
    def select(self, state: TreeState) -> Choice:
        """The node to expand next, one for which :meth:`~gradatim.search.tree_state.TreeState.may_expand` holds."""


class Descent(Selection):
    """A selection that walks from the root to the node, choosing at each expanded node on the way."""

    def select(self, state: TreeState) -> Choice:
        if state.tree.root in state.blocked:
            return Choice(None, "everything else was explored")
        node, why = state.tree.root, "the problem itself"
        while node in state.children:
            chosen, why = self.choose(node, state)
            if chosen is node:
                break
            node = chosen
        return Choice(node, why)

    @abstractmethod
    def choose(self, node: Node, state: TreeState) -> tuple[Node, str]:
        """The child to go on with, one of the node's open children, or the node itself, to expand it again; and why."""


def most_promising(nodes: Sequence[Node], promises: Sequence[float], name: str, state: TreeState) -> tuple[Node, str]:
    """The node of the highest promise, of equals the first; and why.

    Args:
        nodes: ``[nodes]``, at least one.
        promises: ``[nodes]``: one for each.
        name: what the promise is called.
        state: the search.
    """
    promise, node = max(zip(promises, nodes, strict=True), key=lambda pair: pair[0])
    return node, f"{name} {promise:.2f} after {state.visits(node)} visits"


@options
class Queue(Selection):
    """A selection that ranks all steps that wait to be expanded; of equals, the one that was drawn first."""

    solutions: PositiveInt | None = 1
    """The search ends when so many finished solutions rank above all that could be expanded; `null` never ends it."""

    def select(self, state: TreeState) -> Choice:
        if state.tree.root not in state.children:
            return Choice(None if state.under_way else state.tree.root, "the problem itself")
        waiting = sorted(state.waiting(), key=lambda node: -self._known_priority(node, state))
        place = next((place for place, node in enumerate(waiting) if node.open), None)
        if place is None:
            return Choice(None, "everything else was explored")
        if self.solutions is not None and place >= self.solutions:
            return Choice(None, "a finished solution ranks higher" if place == 1 else f"{place} solutions rank higher")
        node = waiting[place]
        if self._known_priority(node, state) == -math.inf:
            return Choice(None, "nothing can come of it")
        return Choice(node, f"{self.why(node, state)}, the best of {sum(each.open for each in waiting)}")

    def _known_priority(self, node: Node, state: TreeState) -> float:
        if node not in state.priorities:
            state.priorities[node] = self.priority(node, state)
        return state.priorities[node]

    @abstractmethod
    def priority(self, node: Node, state: TreeState) -> float:
        """How promising a valued step is that was not expanded yet: the highest is next. Minus infinity is never."""

    @abstractmethod
    def why(self, node: Node, state: TreeState) -> str:
        """The priority in words."""
