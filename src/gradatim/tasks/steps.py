"""Dividing a whole solution into steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from gradatim.errors import GradatimError


def split_at(text: str, step_end: Sequence[str]) -> list[str]:
    """Divide ``text`` after every boundary; joined again the steps are ``text``.

    Boundaries that follow one another, and line breaks after them, belong to the step that they end; those at the
    very beginning belong to the first step. So no step is empty or only a boundary, unless the text is.
    """
    return _pattern(tuple(step_end)).findall(text)


def check_step_end(step_end: Sequence[str]) -> tuple[str, ...]:
    """``step_end`` as a tuple.

    Raises:
        GradatimError: if it is no list of non-empty texts.
    """
    if isinstance(step_end, str) or not step_end or not all(isinstance(end, str) and end for end in step_end):
        raise GradatimError(f'step_end must be a list of the texts that end a step, such as ["\\n"], got {step_end!r}')
    return tuple(step_end)


@lru_cache
def _pattern(step_end: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(step_end, key=len, reverse=True)
    boundary = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?:{boundary})*(?:(?!{boundary}).)+(?:(?:{boundary})+\n*)?|(?:{boundary})+", re.DOTALL)
