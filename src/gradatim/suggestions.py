"""What a misspelt name was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def suggestion(given: str, valid: Sequence[str]) -> str:
    """``did you mean 'x'?`` for the nearest valid name, or the valid ones where none is near."""
    near = difflib.get_close_matches(given, valid, n=1, cutoff=0.5)
    listed = some_of(sorted(valid))
    return f"did you mean {near[0]!r}? (valid: {listed})" if near else f"valid: {listed}"


def some_of(names: Sequence[str], most: int = 20) -> str:
    """The names with commas between them, or the first ones and the number of the others."""
    others = len(names) - most
    return ", ".join(names[:most]) + (f" and {others} more" if others > 0 else "")
