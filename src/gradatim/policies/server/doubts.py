"""Answers that can be read and seem flawed: when it is worth asking for them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from enum import StrEnum

ASKED_AGAIN = 2  # times for one answer
_PATIENCE = 3  # answers that were asked for again and came alike


class Doubt(StrEnum):
    """What seems flawed in an answer. Each may also be the way of a server, or chance."""

    REPEATED = "sent an event twice"
    COUNT = "shows more tokens than it counts"
    LOG_PROBABILITIES = "sends some tokens without a log-probability"
    END = "does not say why its answer ended"


OF_TEXT = frozenset({Doubt.REPEATED, Doubt.COUNT})
"""The doubts that concern the text itself: some of it may be there twice."""


class Doubts:
    """Learns of one server whether what seems flawed in its answers is better when it is asked for again.

    An answer is asked for again at most :data:`ASKED_AGAIN` times, and then taken as it is. Where that changed nothing
    for several answers, and oftener than it did, it is the server's way, and such answers are taken at once.
    """

    def __init__(self) -> None:
        self._helped: Counter[Doubt] = Counter()
        self._in_vain: Counter[Doubt] = Counter()

    def worth_asking(self, doubts: Collection[Doubt]) -> list[Doubt]:
        """Those of ``doubts`` for which an answer should be asked for again."""
        return [
            doubt
            for doubt in sorted(doubts)
            if self._in_vain[doubt] < _PATIENCE or self._in_vain[doubt] < self._helped[doubt]
        ]

    def learn(self, asked: Collection[Doubt], left: Collection[Doubt]) -> None:
        """Note what became of an answer that was asked for again.

        Args:
            asked: why it was.
            left: what still seemed flawed in the one that was taken.
        """
        for doubt in set(asked):
            (self._in_vain if doubt in left else self._helped)[doubt] += 1
