"""A filter by where in its solution a term begins."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.supervision.filters.base import Filter, depth_of
from gradatim.supervision.terms import Term


@part
class Depth(Filter):
    """Keep what begins within some of a solution's steps; a pair begins where its sides part."""

    first: PositiveInt = 1
    """The first step that is kept."""
    last: PositiveInt | None = None
    """The last step that is kept; `null` for no end."""

    def __post_init__(self) -> None:
        if self.last is not None and self.last < self.first:
            raise GradatimError(f"depth keeps nothing from step {self.first} to {self.last}; raise last")

    @property
    def drops(self) -> str:
        until = "" if self.last is None else f" or behind step {self.last}"
        return f"begins before step {self.first}{until}"

    def __call__(self, terms: Sequence[Term]) -> list[Term]:
        last = float("inf") if self.last is None else self.last
        return [term for term in terms if self.first <= depth_of(term) <= last]
