"""A filter by chance."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.supervision.filters.base import Filter, at_most
from gradatim.supervision.terms import Term


@part
class Sample(Filter):
    """Keep so many terms, chosen by chance: for comparisons at equal numbers."""

    count: PositiveInt
    """How many are kept at most."""
    seed: int = 0
    """Of what is chosen."""

    @property
    def drops(self) -> str:
        return f"beyond {self.count:,} chosen by chance"

    def __call__(self, terms: Sequence[Term]) -> list[Term]:
        return at_most(terms, self.count, lambda term: None, self.seed)
