"""The answer that a published solution states, in any of the ways in which these data sets mark it."""

from __future__ import annotations

import re

_STATED = (
    re.compile(r"(?:\A|\n)# Answer\s*\n\s*(?P<answer>\S.*?)\s*\Z", re.DOTALL),
    re.compile(r"####[ \t]*(?P<answer>\S[^\n]*?)\s*\Z"),
    re.compile(r"\b[Tt]he (?:final )?answer is:?[ \t]*(?P<answer>\S[^\n]*?)\s*\Z"),
)
_BOXED = "\\boxed{"


def final_answer(text: str) -> str | None:
    """The answer with which ``text`` ends, or ``None`` if it states none: the solution can then go on.

    Known are ``# Answer`` and the answer on a line of its own (PRM800K), ``#### answer`` (GSM8K),
    ``The answer is: answer`` (Math-Shepherd) and the last ``\\boxed{answer}`` (MATH).
    """
    for pattern in _STATED:
        match = pattern.search(text)
        if match is not None and _BOXED not in match["answer"]:
            return match["answer"]
    return _boxed(text)


def _boxed(text: str) -> str | None:
    """What the last box holds, nested braces included; ``None`` without a box or if it is cut off."""
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    start += len(_BOXED)
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return None
