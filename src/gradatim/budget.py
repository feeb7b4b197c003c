"""The token budget of one problem, which no search can exceed.

A budget belongs to a tree. Whoever runs a model over the tree charges it for every token that the tree gets and every
one that is read, so a search need not count and cannot overspend. Tokens are counted logically: each token of a tree
counts once as written by the policy and once as read by each scorer, and the prompt once as read. What a cache had to
recompute for lack of memory is a property of the machine and not of the method; engines report it apart, so that the
same search always costs the same.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Spending(StrEnum):
    """What tokens are spent on."""

    POLICY_PREFILL = "policy_prefill"
    POLICY_GENERATED = "policy_generated"
    SCORER_PREFILL = "scorer_prefill"
    SCORER_GENERATED = "scorer_generated"


@dataclass(slots=True)
class Budget:
    """Counts every token that models read or write for one problem, and stops at ``limit`` (``None``: no limit).

    The four counters are in tokens. ``total`` never exceeds ``limit``.
    """

    limit: int | None = None
    policy_prefill: int = 0
    policy_generated: int = 0
    scorer_prefill: int = 0
    scorer_generated: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"a budget cannot be negative, got {self.limit}")

    @property
    def total(self) -> int:
        """Tokens spent so far, of all four kinds."""
        return self.policy_prefill + self.policy_generated + self.scorer_prefill + self.scorer_generated

    @property
    def remaining(self) -> int | None:
        """Tokens left, or ``None`` where there is no limit; 0 if the limit was lowered below what is spent."""
        return None if self.limit is None else max(0, self.limit - self.total)

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.limit is not None and self.total >= self.limit

    def take(self, spending: Spending, tokens: int) -> bool:
        """Spend ``tokens`` if all of them are left; otherwise spend nothing and return ``False``."""
        remaining = self.remaining
        if remaining is not None and tokens > remaining:
            return False
        self.take_up_to(spending, tokens)
        return True

    def take_up_to(self, spending: Spending, tokens: int) -> int:
        """Spend as many of ``tokens`` as are left, and return how many that was."""
        if tokens < 0:
            raise ValueError(f"tokens cannot be given back to a budget, got {tokens}")
        remaining = self.remaining
        granted = tokens if remaining is None else min(tokens, remaining)
        setattr(self, spending.value, getattr(self, spending.value) + granted)
        return granted

    def give_back(self, spending: Spending, tokens: int) -> None:
        """Take back ``tokens`` that were paid for before it was known how many would be needed, and were not."""
        spent = getattr(self, spending.value)
        if not 0 <= tokens <= spent:
            raise ValueError(f"of {spent} tokens spent, {tokens} cannot be given back")
        setattr(self, spending.value, spent - tokens)

    def to_json(self) -> dict[str, int | None]:
        """A JSON object with the limit and the four counters; ``Budget(**it)`` restores it."""
        return asdict(self)
