"""What a policy has read and written of a tree, and has paid for."""

from __future__ import annotations

from gradatim.budget import Budget, Spending
from gradatim.tree import Node


class PaidPaths:
    """Knows what a policy has read and written of a tree, and pays for what it reads for the first time.

    Args:
        budget: of the tree.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._known: dict[int, int] = {}

    def unknown(self, node: Node) -> list[Node]:
        """The nodes on the path to ``node`` that the policy has neither read nor written."""
        return [each for each in node.path() if each.id not in self._known]

    def charge(self, node: Node, path_tokens: int) -> bool:
        """Pay for reading what is unknown on the path to ``node``, which has ``path_tokens`` in all.

        Returns whether the budget could pay; if not, nothing is charged.
        """
        unknown = self.unknown(node)
        if not unknown:
            return True
        tokens = max(0, path_tokens - sum(self._known.get(each.id, 0) for each in node.path()))
        if not self._budget.take(Spending.POLICY_PREFILL, tokens):
            return False
        self._known.update((each.id, 0) for each in unknown)
        self._known[unknown[0].id] = tokens
        return True

    def mark_written(self, node: Node, tokens: int) -> None:
        """Note that the policy wrote the node's step itself, so it never counts as read."""
        self._known.setdefault(node.id, tokens)
