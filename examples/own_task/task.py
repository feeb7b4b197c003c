"""Change-giving: a task whose problems are generated and whose steps are checked one coin at a time."""

from __future__ import annotations

import random
import re

from gradatim.part import part
from gradatim.tasks.base import Task
from gradatim.tree import Problem


@part
class Change(Task):
    """Pay an amount with coins, one coin a line, and end with "Done"."""

    coins: tuple[int, ...] = (1, 5, 10, 25)
    """The coins that there are."""
    largest: int = 99
    """Amounts are at most this."""

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of a split, always the same; no amount is in two splits."""
        amounts = list(range(1, self.largest + 1))
        random.Random(0).shuffle(amounts)
        share = len(amounts) // 5
        parts = {"test": amounts[:share], "validation": amounts[share : 2 * share], "train": amounts[2 * share :]}
        return [
            Problem(f"change/{amount}", f"Pay {amount} with coins of {self.coins}\n", str(amount))
            for amount in parts[split][:count]
        ]

    def answer(self, problem: Problem, text: str) -> str | None:
        """What the coins add up to, if every line is one; better with fewer coins is not asked."""
        *lines, last = text.strip().split("\n")
        coins = [int(line) for line in lines if re.fullmatch(r"[0-9]{1,9}", line)]
        if last != "Done" or len(coins) < len(lines) or not set(coins) <= set(self.coins):
            return None
        return str(sum(coins))
