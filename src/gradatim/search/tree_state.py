"""What a tree search knows of its tree: values and visits, what is under way, and where nothing is left to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gradatim.scorers.aggregation import Aggregate
from gradatim.search.ranking import path_score
from gradatim.tree import Node, Tree

Backup = Literal["mean", "max"]


@dataclass(slots=True)
class TreeState:
    """Values and visits, which lie in the tree (``node.scores[key]``, ``node.counts[key]``), and what follows of them.

    A step that was valued counts as one visit of itself and of everything above it. So the visits of a node are its own
    one and those of its children (the root's: those of its children), and its value is the mean over them, or the best
    of them. Expansions that brought nothing new are counted likewise, as ``node.counts[key + "_in_vain"]``.

    Attributes:
        tree: the tree; what an earlier search under the same key left in it is taken up.
        key: the name of the values and visits.
        scorer: the name of the scores that steps are valued by.
        aggregate: how the value of a partial solution is made of its steps' scores.
        backup: what a node's value is of the values at and below it.
        patience: expansions of a node in vain after which it is not expanded again; with 0 it is expanded once.
        children: the valued children of each expanded node; the tree may hold others, of rollouts.
        virtual_losses: expansions under way at or below a node; each counts as a visit of value 0.
        under_way: the nodes that are being expanded.
        blocked: nodes at and below which nothing can be selected: solutions, what is fully explored, what is under
            way.
        priorities: what a selection that ranks all waiting steps knows of them already.
    """

    tree: Tree
    key: str
    scorer: str
    aggregate: Aggregate = "last"
    backup: Backup = "mean"
    patience: int = 0
    children: dict[Node, list[Node]] = field(default_factory=dict)
    virtual_losses: Counter[Node] = field(default_factory=Counter)
    under_way: set[Node] = field(default_factory=set)
    blocked: set[Node] = field(default_factory=set)
    priorities: dict[Node, float] = field(default_factory=dict)
    _blocked_meanwhile: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        for node in self.tree.nodes:
            valued = [child for child in node.children if self.is_valued(child)]
            if valued:
                self._adopt(node, valued)

    def is_valued(self, node: Node) -> bool:
        """Whether the search knows what the node is worth."""
        return bool(node.counts.get(self.key))

    def visits(self, node: Node) -> int:
        """How often the node, or one below it, was valued; expansions under way count too."""
        return node.counts.get(self.key, 0) + self.virtual_losses[node]

    def value(self, node: Node) -> float:
        """What the visits of a node were worth; those of expansions under way nothing."""
        return node.scores[self.key] * node.counts[self.key] / self.visits(node)

    def own_value(self, node: Node) -> float | None:
        """What a step alone is worth, by the scorer; ``None`` if it left it unscored. A cut-off solution is worth
        nothing.

        Raises:
            GradatimError: if the score is not a finite number.
        """
        if node.step.end.cuts_off:
            return 0.0
        return path_score(node, self.scorer, self.aggregate)

    def own_values_below(self, node: Node) -> list[float]:
        """What each valued step below a node is worth alone, the node itself left out."""
        found = []
        waiting = self.children.get(node, [])[::-1]
        while waiting:
            child = waiting.pop()
            value = self.own_value(child)
            if value is not None:
                found.append(value)
            waiting.extend(self.children.get(child, ())[::-1])
        return found

    def in_vain(self, node: Node) -> int:
        """How many expansions at or below a node brought nothing new."""
        return node.counts.get(self._in_vain, 0)

    def may_expand(self, node: Node) -> bool:
        """Whether steps may be drawn below the node now."""
        if not node.open or node in self.under_way:
            return False
        here = self.in_vain(node) - sum(map(self.in_vain, node.children))
        return node not in self.children or here < self.patience

    def open_children(self, node: Node) -> list[Node]:
        """The children at or below which something can be selected."""
        return [child for child in self.children[node] if child not in self.blocked]

    def waiting(self) -> list[Node]:
        """The valued steps that were not expanded yet, in the order in which they were drawn; finished ones too."""
        return [
            node
            for node in self.tree.nodes
            if self.is_valued(node)
            and node not in self.children
            and node not in self.under_way
            and not node.step.end.cuts_off
        ]

    def begin(self, node: Node) -> None:
        """A node is going to be expanded: it has a virtual loss on its path, and is not selected again meanwhile."""
        self.virtual_losses.update(node.path())
        self.under_way.add(node)
        self._blocked_meanwhile.extend(self._block(node))

    def release(self, wave: Sequence[Node]) -> None:
        """The expansions of a wave are over, or have failed: their virtual losses are taken back."""
        self.virtual_losses -= Counter(node for leaf in wave for node in leaf.path())
        self.under_way.difference_update(wave)
        self.blocked.difference_update(self._blocked_meanwhile)
        self._blocked_meanwhile.clear()

    def back_up(self, leaf: Node, drawn: Sequence[Node]) -> None:
        """Count the value of each new child of an expanded node as a visit of the child and of all above it.

        Args:
            leaf: the node that was expanded.
            drawn: its children that were drawn, each once. Those that were valued before, or are unscored, count for
                nothing; where there are no others, the expansion was in vain.
        """
        new = [(child, self.own_value(child)) for child in drawn if not self.is_valued(child)]
        valued = [(child, value) for child, value in new if value is not None]
        for child, value in valued:
            for node in child.path():
                self._count(node, value)
        if self.patience and not valued and not self.tree.budget.spent:
            for node in leaf.path():
                node.counts[self._in_vain] = self.in_vain(node) + 1
        self._adopt(leaf, [child for child, _ in valued])

    def _count(self, node: Node, value: float) -> None:
        visits = node.counts.get(self.key, 0) + 1
        before = node.scores.get(self.key, 0.0)
        node.counts[self.key] = visits
        if self.backup == "mean":
            node.scores[self.key] = before + (value - before) / visits
        else:
            node.scores[self.key] = value if visits == 1 else max(before, value)

    def _adopt(self, node: Node, valued: Sequence[Node]) -> None:
        self.children.setdefault(node, []).extend(valued)
        for child in valued:
            if not child.open:
                self._block(child)
        self._block(node)

    def _block(self, node: Node | None) -> list[Node]:
        """Block ``node`` if nothing is left at and below it, then so its ancestors; returns those newly blocked."""
        newly: list[Node] = []
        while node is not None and node not in self.blocked and not self.may_expand(node):
            if not all(child in self.blocked for child in self.children.get(node, ())):
                break
            self.blocked.add(node)
            newly.append(node)
            node = node.parent
        return newly

    @property
    def _in_vain(self) -> str:
        return f"{self.key}_in_vain"
