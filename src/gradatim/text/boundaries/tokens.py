"""Steps of equal length."""

from __future__ import annotations

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.text.boundaries.base import Boundary, Written


@part
class Tokens(Boundary):
    """A step ends after a number of tokens.

    Tokens are those that the policy writes: an engine's own, or those that a server shows (an event that holds several
    is not divided). In a whole text, whose tokens nobody knows, a token is taken to be a word with the white space
    before it.
    """

    count: PositiveInt
    """Tokens of a step."""

    def end(self, written: Written) -> int | None:
        return written.at_token(self.count)

    @property
    def looks_ahead(self) -> bool:
        return False

    @property
    def words(self) -> str:
        return f"its token number {self.count}"
