"""Steps that end with given strings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from gradatim.part import part
from gradatim.text.boundaries.base import TextBoundary


@part
class Delimiter(TextBoundary):
    """A step ends with one of some strings: a line's end, an empty line, a mark."""

    at: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = ("\n",)
    r"""The strings, such as `["\n"]` for lines or `["\n\n"]` for blocks between empty lines."""

    def ends(self, text: str) -> Iterator[int]:
        return (match.end() for match in _behind(self.at).finditer(text))

    def may_end(self, piece: str) -> bool:
        return any(string in piece or _completes(piece, string) for string in self.at)

    @property
    def looks_ahead(self) -> bool:
        return False

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return self.at

    @property
    def words(self) -> str:
        return " or ".join("a line end" if string == "\n" else repr(string) for string in self.at)


LINES = Delimiter()
"""Every line is a step."""


@lru_cache
def _behind(strings: tuple[str, ...]) -> re.Pattern[str]:
    """Matches the empty text behind each place where one of the strings is complete."""
    return re.compile("|".join(f"(?<={re.escape(string)})" for string in strings))


def _completes(piece: str, string: str) -> bool:
    """Whether ``piece`` may write the last part of ``string``."""
    if "\ufffd" in piece and not string.isascii():
        return True
    return any(piece.startswith(string[cut:]) for cut in range(1, len(string)))
