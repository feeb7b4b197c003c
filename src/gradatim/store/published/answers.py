"""The answer that a published solution states, in any of the ways in which these data sets mark it."""

from __future__ import annotations

import re

from gradatim.tasks.math_answers import last_boxed

_ON_THE_LAST_LINE = (
    re.compile(r"####[ \t]*(?P<answer>\S.*)"),
    re.compile(r"\b[Tt]he (?:final )?answer is:?[ \t]*(?P<answer>\S.*)"),
)
_BELOW_A_HEADING = re.compile(r"(?:\A|\n)# Answer[^\S\n]*\n\s*(?P<answer>\S.*)", re.DOTALL)


def final_answer(text: str) -> str | None:
    """The answer with which ``text`` ends, or ``None`` if it states none: the solution can then go on.

    Known are ``# Answer`` and the answer on a line of its own (PRM800K), ``#### answer`` (GSM8K),
    ``The answer is: answer`` (Math-Shepherd) and the last ``\\boxed{answer}`` (MATH).
    """
    text = text.strip()
    last_line = text.rpartition("\n")[2]
    stated = [_BELOW_A_HEADING.search(text), *(pattern.search(last_line) for pattern in _ON_THE_LAST_LINE)]
    bare = (match["answer"] for match in stated if match is not None and "\\boxed" not in match["answer"])
    return next(bare, None) or last_boxed(text)
