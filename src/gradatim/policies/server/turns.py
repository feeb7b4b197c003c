"""Whose turn it is to be charged, where a tree's continuations are requests to a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from gradatim.policies.paid_paths import PaidPaths
from gradatim.policies.server.drafts import Draft
from gradatim.policies.spending_order import SpendingOrder
from gradatim.tree import Tree


class Turns:
    """Has the drafts of one tree wait until it is their turn to be charged (:class:`SpendingOrder`).

    Args:
        tree: the tree.

    Attributes:
        paths: what the policy has paid for of the tree.
        limited: whether the tree has a budget that may end.
    """

    def __init__(self, tree: Tree) -> None:
        self.paths = PaidPaths(tree.budget)
        self._budget = tree.budget
        self._order: SpendingOrder[Draft] = SpendingOrder(tree.budget, _charge)
        self._last: asyncio.Future[None] | None = None  # done when the call before has lined up
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def limited(self) -> bool:
        return self._order.limited

    @property
    def left(self) -> int | None:
        """Tokens that the budget has left, ``None`` where it has no limit."""
        return self._budget.remaining

    @asynccontextmanager
    async def lining_up(self) -> AsyncIterator[None]:
        """Held while a call reads what it must and asks for its drafts: one call after the other, as they were made."""
        before, mine = self._last, asyncio.get_running_loop().create_future()
        self._last = mine
        try:
            if before is not None and not before.done():
                await asyncio.wait({before})
            yield
        finally:
            if not mine.done():
                mine.set_result(None)

    def ask(self, drafts: Iterable[Draft]) -> None:
        """Line up drafts behind those that were asked for before."""
        self._order.ask(drafts)
        self._order.settle(())
        self.update()

    def update(self) -> None:
        """Tell all drafts what they may have now; to be called whenever something was written."""
        self._order.allot()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def charge(self, draft: Draft) -> None:
        """Charge a draft that is done and whose turn it is; those that nothing is left for have no result then."""
        draft.done = True
        self._order.settle([draft])
        self.update()

    def withdraw(self, drafts: Iterable[Draft]) -> None:
        """Take drafts out that nobody waits for any more; what they wrote is charged."""
        self._order.withdraw(draft for draft in drafts if not draft.settled)
        self.update()

    async def all_charged(self) -> None:
        """Wait until every draft that was asked for is charged."""
        while self._order:
            await self._change()

    async def turn_of(self, draft: Draft) -> None:
        """Wait until it is the draft's turn, or it was found to have no result."""
        while not draft.settled and self._order.first is not draft:
            await self._change()

    async def likely(self, draft: Draft) -> None:
        """Wait until the budget is likely to have something for the draft, or it was found to have no result."""
        while not draft.settled and not draft.begins:
            await self._change()

    async def until_settled(self, drafts: Sequence[Draft], writing: Sequence[asyncio.Task[None]]) -> None:
        """Wait until all of ``drafts`` are charged or found to have no result; raises what a task of ``writing`` does.

        Requests for what has no result may still be under way then.
        """

        async def settled() -> None:
            while not all(draft.settled for draft in drafts):
                await self._change()

        waiting: asyncio.Task[None] = asyncio.ensure_future(settled())
        pending: set[asyncio.Task[None]] = {waiting, *writing}
        try:
            while not waiting.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            waiting.cancel()

    async def _change(self) -> None:
        change = asyncio.get_running_loop().create_future()
        self._waiting.append(change)
        await change


def _charge(draft: Draft, left: int | None) -> int:
    """Close a draft; returns what it costs."""
    draft.settled = True
    if not draft.done or (left is not None and left <= 0):
        draft.drop()
    elif draft.stopped:
        draft.cut_off()
    return draft.written
