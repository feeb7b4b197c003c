"""Solutions written as one text with numbered steps: where the question ends, and where steps are numbered anew."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gradatim.records import MalformedRecordError

_FIRST_STEP = re.compile(r"\bstep 1:", re.IGNORECASE)


def split_question(text: str) -> tuple[str, str]:
    """Divide a question that is followed by a first step: before "Step 1:", else behind the last question mark.

    Raises:
        MalformedRecordError: if there is neither.
    """
    match = _FIRST_STEP.search(text)
    if match is not None:
        return text[: match.start()].strip(), text[match.start() :].strip()
    question, mark, step = text.rpartition("?")
    if not mark or not step.strip():
        raise MalformedRecordError("does not show where the question ends ('Step 1:' or a question mark)")
    return (question + mark).strip(), step.strip()


def has_first_step(text: str) -> bool:
    """Whether "Step 1:" stands somewhere in ``text``."""
    return _FIRST_STEP.search(text) is not None


def numbered(steps: Sequence[str]) -> list[str]:
    """Steps that show where the question before them ends: numbered, unless the first one is already."""
    stripped = [step.strip() for step in steps]
    if stripped and _FIRST_STEP.match(stripped[0]):
        return stripped
    return [f"Step {number}: {step}" for number, step in enumerate(stripped, 1)]
