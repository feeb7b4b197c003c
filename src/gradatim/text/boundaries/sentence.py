"""Steps that are sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gradatim.part import part
from gradatim.text.boundaries.base import TextBoundary

_END = re.compile(r"""(?<![.!?])[.!?]+["'”’)\]}*_]*(?=\s)""")
_OPENING = "\"'“‘([{*_"
_LONGEST_WORD = 40  # characters; what is longer is no abbreviation
_LETTERS_WITH_DOTS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")  # e.g, i.e, U.S
_ABBREVIATIONS = frozenset({
    "approx", "cf", "dr", "eq", "eqs", "etc", "fig", "figs", "ineq", "jr", "lem", "mr", "mrs", "ms", "nos", "nr",
    "prof", "resp", "sr", "st", "thm", "viz", "vs",
})  # fmt: skip


@part
class Sentence(TextBoundary):
    """A step is a sentence: it ends with `.`, `!` or `?` before white space.

    Closing quotes and brackets belong to it, the white space begins the next step. What has no white space behind it
    ends nothing (`3.5`, `math.sqrt`), and neither do common abbreviations (`e.g.`, `Fig.`, `vs.`) and the number that
    begins a line of a list (`2. Add them.`). An abbreviation at a sentence's end joins it with the next one.
    """

    def ends(self, text: str) -> Iterator[int]:
        return (match.end() for match in _END.finditer(text) if not _is_abbreviated(text, match.start()))

    def may_end(self, piece: str) -> bool:
        return "\ufffd" in piece or any(character.isspace() for character in piece)

    @property
    def words(self) -> str:
        return "the end of a sentence"


def _is_abbreviated(text: str, place: int) -> bool:
    """Whether what stands at ``place`` is the dot of an abbreviation or of a number in a list."""
    if text[place] != "." or text[place : place + 2] == "..":
        return False
    before = text[max(0, place - _LONGEST_WORD) : place]
    word = "" if not before or before[-1].isspace() else before.split()[-1].lstrip(_OPENING)
    if word.isdigit():
        return not text[text.rfind("\n", 0, place) + 1 : place - len(word)].strip()
    return word.lower() in _ABBREVIATIONS or _LETTERS_WITH_DOTS.fullmatch(word) is not None
