"""Steps that are several steps of another boundary in one."""

from __future__ import annotations

from typing import Annotated

from pydantic import PositiveInt

from gradatim.part import PartOf, part
from gradatim.text.boundaries.base import Boundary, Written


@part
class Merged(Boundary):
    """A step is several adjacent steps of another boundary in one (hierarchical rewards, 2025, arXiv:2503.13551)."""

    inner: Annotated[Boundary, PartOf("text/boundaries")]
    """The boundary of the steps that are merged."""
    count: PositiveInt = 2
    """How many of them are one."""

    def end(self, written: Written) -> int | None:
        whole, rest = 0, written
        for _ in range(self.count):
            end = self.inner.end(rest)
            if end is None:
                return None
            whole, rest = whole + end, rest.behind(end)
        return whole

    def may_end(self, piece: str) -> bool:
        return self.inner.may_end(piece)

    @property
    def looks_ahead(self) -> bool:
        return self.inner.looks_ahead

    @property
    def words(self) -> str:
        return f"{self.inner.words}, number {self.count} of the step"
