"""Who may spend a tree's budget first, where several continuations of the tree are written at the same time.

Continuations of a tree are written side by side, as many as a batch has room for, and how far each has come at a
given moment depends on the batch. So none of them takes from the budget while it is written. They are charged one
after the other, in the order in which they were asked for, as if each had been written to its end before the next one
began: the one in which the budget ends is cut off there, and those behind it have no results. What was written beyond
the cut is dropped and not charged. So a limited tree is the same in every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from gradatim.budget import Account, Budget


class Writer(Protocol):
    """A continuation that is being written.

    Attributes:
        allowed: so many tokens it may have at most, as far as is known; it is never given more later on.
        begins: whether it is likely to have any result, as far as is known; until then it need not begin.
    """

    allowed: int | None
    begins: bool

    @property
    def account(self) -> Account:
        """What it is charged to."""
        ...

    @property
    def written(self) -> int:
        """Tokens written so far."""
        ...

    @property
    def may_drop(self) -> bool:
        """Whether it may turn out that the last tokens written are no part of the solution."""
        ...

    @property
    def done(self) -> bool:
        """Whether nothing more will be written."""
        ...


W = TypeVar("W", bound=Writer)


class SpendingOrder(Generic[W]):
    """Charges what writers wrote to the budget of their tree, in the order in which they were asked for.

    Args:
        budget: of the tree.
        close: called with a writer and the tokens that are left for it (``None`` without a limit) when it is its turn;
            cuts it off there and returns how many tokens it has then.
    """

    def __init__(self, budget: Budget, close: Callable[[W, int | None], int]) -> None:
        self._budget = budget
        self._close = close
        self._waiting: dict[int, W] = {}
        self._most_written = 0  # by all that wait: at least what they wrote together
        self._near_end = True  # whether the last look at all writers found that the budget may not do for them

    def __bool__(self) -> bool:
        """Whether any writer has not been charged yet."""
        return bool(self._waiting)

    @property
    def limited(self) -> bool:
        return self._budget.limit is not None

    @property
    def first(self) -> W | None:
        """The writer that is charged next; ``None`` if all are charged."""
        return next(iter(self._waiting.values()), None)

    def ask(self, writers: Iterable[W]) -> None:
        """Line up writers behind those that were asked for before."""
        for writer in writers:
            self._waiting[id(writer)] = writer
            self._most_written += writer.written

    def allot(self, new: int | None = None) -> None:
        """Tell every writer what it may have at most, and whether it is likely to have anything.

        Args:
            new: tokens that each writer has written since the last call, at most; ``None`` where that is unknown. Where
                it is known, writers are not looked at one by one, and keep what they were told, as long as the budget
                does for all that they have written: hundreds of them would have to be, for every token.
        """
        left = self._budget.remaining
        if left is None:
            return
        if new is not None:
            self._most_written += new * len(self._waiting)
            if self._most_written < left and not self._near_end:
                return
        self._most_written = sum(writer.written for writer in self._waiting.values())
        self._near_end = self._most_written >= left
        likely = left
        for writer in self._waiting.values():
            writer.allowed = max(0, left)
            writer.begins = likely > 0
            likely -= writer.written
            if not writer.may_drop:
                left -= writer.written

    def settle(self, done: Iterable[W]) -> list[W]:
        """Charge writers that are ``done`` and whose turn it is; returns all that were charged, in order.

        Without a limit it is always a writer's turn. Once nothing is left, it is the turn of all.
        """
        settled: list[W] = []
        if not self.limited:
            for writer in done:
                if self._taken_out(writer):
                    settled.append(self._charge(writer))
            return settled
        while self._waiting:
            writer = next(iter(self._waiting.values()))
            if not writer.done and not self._budget.spent:
                break
            self._taken_out(writer)
            settled.append(self._charge(writer))
        return settled

    def withdraw(self, writers: Iterable[W]) -> None:
        """Take writers out that nobody waits for any more; what they wrote is charged."""
        for writer in writers:
            if self._taken_out(writer):
                self._budget.take_up_to(writer.account, writer.written)

    def withdraw_all(self) -> None:
        """Take all writers out; what they wrote is charged."""
        self.withdraw(list(self._waiting.values()))

    def _taken_out(self, writer: W) -> bool:
        """Take a writer out of the line; returns whether it stood there."""
        # It still counts in what was written at most, until the next look at all: its last tokens were not added yet.
        return self._waiting.pop(id(writer), None) is not None

    def _charge(self, writer: W) -> W:
        tokens = self._close(writer, self._budget.remaining)
        self._budget.take_up_to(writer.account, tokens)
        return writer
