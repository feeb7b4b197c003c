"""The token budget of one problem, which no search can exceed.

A budget belongs to a tree. Whoever runs a model over the tree charges it for every token that the tree gets and every
one that is read, so a search need not count and cannot overspend. Tokens are counted logically: each token of a tree
counts once as written by the policy and once as read by each scorer, and the prompt once as read. What a cache had to
recompute for lack of memory is a property of the machine and not of the method; engines report it apart, so that the
same search always costs the same.

What each model costs is kept apart, in accounts: the policy's, a scorer's, a prover's, a judge's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


class Account(NamedTuple):
    """What tokens are charged to.

    Attributes:
        name: of the model or its part in a method: ``"policy"``, ``"scorer"``, ``"prover"``, ...
        parameters: how many of the model every token passes through, where that is known; FLOPs are estimated by it.
    """

    name: str
    parameters: int | None = None

    def of_size(self, parameters: int | None) -> Account:
        """The account of a model with so many parameters, unless it says itself how many there are."""
        return self if self.parameters is not None else self._replace(parameters=parameters)


POLICY = Account("policy")
SCORER = Account("scorer")


@dataclass(slots=True)
class Spent:
    """What was charged to one account.

    Attributes:
        read: tokens that the model read for the first time.
        written: tokens that it wrote.
        parameters: the model's size; ``None`` where it is unknown, or models of several sizes were charged.
    """

    read: int = 0
    written: int = 0
    parameters: int | None = None

    @property
    def tokens(self) -> int:
        return self.read + self.written


@dataclass(slots=True)
class Budget:
    """Counts every token that models read or write for one problem, and stops at ``limit`` (``None``: no limit).

    ``total`` never exceeds ``limit``; ``accounts`` are in the order in which they were first charged.
    """

    limit: int | None = None
    accounts: dict[str, Spent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"a budget cannot be negative, got {self.limit}")

    @property
    def total(self) -> int:
        """Tokens spent so far, of all accounts."""
        return sum(spent.tokens for spent in self.accounts.values())

    @property
    def remaining(self) -> int | None:
        """Tokens left, or ``None`` where there is no limit; 0 if the limit was lowered below what is spent."""
        return None if self.limit is None else max(0, self.limit - self.total)

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.limit is not None and self.total >= self.limit

    def read(self, account: str) -> int:
        """Tokens that were charged to an account as read."""
        return self.accounts.get(account, Spent()).read

    def written(self, account: str) -> int:
        """Tokens that were charged to an account as written."""
        return self.accounts.get(account, Spent()).written

    def take(self, account: Account, *, read: int = 0, written: int = 0) -> bool:
        """Spend ``read`` and ``written`` tokens if all of them are left; otherwise spend nothing, return ``False``."""
        if read < 0 or written < 0:
            raise ValueError(f"tokens cannot be given back to a budget, got {min(read, written)}")
        remaining = self.remaining
        if remaining is not None and read + written > remaining:
            return False
        if read or written:
            spent = self.accounts.setdefault(account.name, Spent(parameters=account.parameters))
            if spent.parameters != account.parameters:
                spent.parameters = None
            spent.read += read
            spent.written += written
        return True

    def take_up_to(self, account: Account, written: int) -> int:
        """Spend as many of ``written`` tokens as are left, and return how many that was."""
        remaining = self.remaining
        granted = written if remaining is None else min(written, remaining)
        self.take(account, written=granted)
        return granted

    def give_back(self, account: Account, written: int) -> None:
        """Take back tokens that were paid for before it was known how many would be written, and were not."""
        paid = self.written(account.name)
        if not 0 <= written <= paid:
            raise ValueError(f"of {paid} tokens spent, {written} cannot be given back")
        if written:
            self.accounts[account.name].written -= written

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the limit and the accounts; :meth:`from_json` restores it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Budget:
        """Restore a budget from :meth:`to_json`'s object."""
        return cls(value["limit"], {name: Spent(**spent) for name, spent in value["accounts"].items()})
