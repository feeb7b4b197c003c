"""Dividing a whole solution into steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache


def split_at(text: str, step_end: Sequence[str]) -> list[str]:
    """Divide ``text`` after every boundary; joined again the steps are ``text``.

    Boundaries that follow one another, and line breaks after them, belong to the step that they end; those at the
    very beginning belong to the first step. So no step is empty or only a boundary, unless the text is.
    """
    return _pattern(tuple(step_end)).findall(text)


@lru_cache
def _pattern(step_end: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(step_end, key=len, reverse=True)
    boundary = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?:{boundary})*(?:(?!{boundary}).)+(?:(?:{boundary})+\n*)?|(?:{boundary})+", re.DOTALL)
