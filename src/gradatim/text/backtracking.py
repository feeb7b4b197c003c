"""A search written as one text: steps, and marks that take the step before them back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

MARK = "Backtrack\n"
Mark = Annotated[str, Field(pattern=r"\S")]
"""An option that is the text of a step that takes the one before it back; not blank, and whole as a step is (lines end
in a line break), in words that the model's tokenizer knows."""


def is_mark(step: str, mark: str) -> bool:
    """Whether a step takes the one before it back."""
    return step.strip() == mark.strip()


def standing(steps: Iterable[str], mark: str) -> list[str]:
    """The steps that no mark takes back: each mark takes back the last one that still stands, none at the beginning."""
    left: list[str] = []
    for step in steps:
        if not is_mark(step, mark):
            left.append(step)
        elif left:
            left.pop()
    return left
