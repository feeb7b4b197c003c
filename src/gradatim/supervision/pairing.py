"""What constructions of step pairs share: ordering two steps by their values, and keeping the widest gaps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, PositiveInt

from gradatim.part import options
from gradatim.supervision.terms import Term, margin, pair
from gradatim.supervision.values import SureStepValues, interval
from gradatim.tree import Node


@options
class PairsOfSteps(SureStepValues):
    """Which of the pairs of one step's children are kept."""

    min_gap: Annotated[float, Field(ge=0)] = 0.0
    """By how much the values of a pair differ at least."""
    max_per_parent: PositiveInt | None = None
    """Pairs of one step's children at most, those of the widest gap; `null` for all."""

    def ordered(self, first: Node, second: Node) -> Term:
        """The pair of two steps, the better one chosen, the first one of equals."""
        one, other = first.scores[self.value], second.scores[self.value]
        return pair(first, second, (one, other)) if one >= other else pair(second, first, (other, one))

    def widest(self, pairs: Iterable[Term]) -> list[Term]:
        """Of the pairs below one parent, those that differ by enough, widest gap first."""
        kept = [term for term in pairs if margin(term) > 0 and margin(term) >= self.min_gap and self._is_sure(term)]
        return sorted(kept, key=lambda term: -margin(term))[: self.max_per_parent]

    def _is_sure(self, term: Term) -> bool:
        if not self.confident:
            return True
        chosen, rejected = (interval(end, self.value) for end in term.ends)
        return chosen[0] > rejected[1]
