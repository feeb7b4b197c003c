"""What a policy has paid for of a tree, and how a tree's budget is shared out among requests to a server."""

from __future__ import annotations

import asyncio

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


class Allowance(PaidPaths):
    """Shares a tree's budget among requests to a server.

    A server that is asked for whole steps writes as many tokens as a request permits, so they are paid for before and
    what was not written is given back. A budget that does not suffice for all is shared out evenly among those who
    wait; who finds nothing left waits for what others give back. So a step is cut off by the budget only when the
    budget is really spent.

    Attributes:
        reading: held while the tokens of a path are counted.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.reading = asyncio.Lock()
        self._waiting = 0
        self._in_flight = 0
        self._returned = asyncio.Event()

    def wait_for(self, writers: int) -> None:
        """Announce so many writers, each of which will :meth:`reserve` once."""
        self._waiting += writers

    async def reserve(self, tokens: int, writers: int = 1) -> int:
        """Pay for up to ``tokens`` for each of ``writers``; returns how many each of them may write, 0 if the budget
        is spent."""
        try:
            while self._budget.spent and self._in_flight:
                self._returned.clear()
                await self._returned.wait()
            remaining = self._budget.remaining
            share = tokens if remaining is None else min(tokens, -(-remaining // max(1, self._waiting)))
            if remaining is not None and share * writers > remaining:
                share = remaining // writers
        finally:
            self._waiting -= writers
        granted = self._budget.take_up_to(Spending.POLICY_GENERATED, share * writers)
        self._in_flight += 1 if granted else 0
        return granted // writers

    def settle(self, granted: int, written: int) -> None:
        """Give back what was paid for and not written; or pay for what a server wrote beyond its bound."""
        if written < granted:
            self._budget.give_back(Spending.POLICY_GENERATED, granted - written)
        else:
            self._budget.take_up_to(Spending.POLICY_GENERATED, written - granted)
        self._in_flight -= 1
        self._returned.set()
