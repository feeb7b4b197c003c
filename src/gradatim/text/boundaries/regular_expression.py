"""Steps that end where a pattern matches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.text.boundaries.base import TextBoundary


@part
class RegularExpression(TextBoundary):
    r"""A step ends where a match of a pattern ends, once something is written behind it.

    So `\n+` takes all line ends that follow each other, and an empty match before what begins a step
    (`(?=\nStep \d)`) ends the step before it. A match is certain when one more character is there: a pattern that looks
    further ahead without ending may divide a text otherwise while it is written than when it is whole. For fixed
    strings use `delimiter`, which needs nothing behind them.
    """

    pattern: str
    """The pattern, as Python's `re` has it, searched for in the text of a step."""

    def __post_init__(self) -> None:
        try:
            _compiled(self.pattern)
        except re.error as error:
            raise GradatimError(f"pattern is no regular expression ({error}): {self.pattern!r}; mend it") from error

    def ends(self, text: str) -> Iterator[int]:
        return (match.end() for match in _compiled(self.pattern).finditer(text) if match.end() < len(text))

    @property
    def words(self) -> str:
        return f"a match of `{self.pattern}`"


@lru_cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
