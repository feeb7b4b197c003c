"""How work is divided into forward passes whose memory is bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def next_pass(items: Sequence[Item], length: Callable[[Item], int], *, rows: int, tokens: int) -> int:
    """How many of ``items``, from the first, one forward pass takes: at least one.

    A pass pads its rows to the longest, so it takes as much memory as rows times the longest.

    Args:
        items: what is to be read, a row each.
        length: tokens of an item with all that it attends to.
        rows: at most so many.
        tokens: at most so many, padding included; one item that is longer has a pass of its own.
    """
    longest = 0
    for count, item in enumerate(items):
        longest = max(longest, length(item))
        if count and (count >= rows or (count + 1) * longest > tokens):
            return count
    return len(items)
