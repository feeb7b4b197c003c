"""Final answers that are one of several lettered options: finding them in a solution and judging them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from gradatim.tasks.base import Verdict, compare
from gradatim.tasks.math_answers import boxed_answer

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_LONGEST_TAIL = 2000
"""So many of a text's last characters are searched: the answer stands at the end."""

_LETTER = r"(?:\( ?(?P<inner>[A-Za-z]) ?\)|(?P<bare>[A-Z])(?![\w'’]))"
_MARK = (
    r"(?i:(?:\banswers?|\b(?:correct|right|best) (?:choice|option)|####) ?(?:is|:|=)? ?:?\s?"
    r"(?:(?:the )?(?:option|choice|letter) )?)"
)
# No further letter that leaves it open which of them is meant.
_ANSWER = re.compile(rf"{_MARK}{_LETTER}(?! ?(?:or|and|/|&) ?\(?[A-Z]\b)")
_NAMED = re.compile(rf"{_MARK}(?P<named>[^\n]+)")
_PRAISED = re.compile(rf"{_LETTER} is (?:the )?(?:correct|right|best)\b")
_LONE = re.compile(rf"{_LETTER} ?[.):]*(?:$|(?<=[.):]) )")
# Lines whose end is the answer: a mark and a letter, perhaps with the option's text; or a letter alone.
_ANSWER_LINE = re.compile(
    rf"(?:.*[.!?] )?(?i:(?:so|thus|hence|therefore),? )?(?i:the )?(?i:final |correct |right |best )*{_MARK}"
    r"(?:\( ?[A-Za-z] ?\)(?! ?(?:or|and|/|&)).{0,200}|[A-Z](?:[.):,].{0,200})?)"
)
_LONE_LINE = re.compile(r"(?:\([A-Z]\)|[A-Z][.)]?)\Z")
_DECORATION = re.compile(r"\\(?:text|mathrm|mathbf|textbf)(?![a-zA-Z])|[*_`$\"“”{}\\]")


def verify_choice(reference: str | None, text: str, choices: Sequence[str] = ()) -> Verdict:
    """Judge a solution by the option that it names (see :func:`extract_choice`). Never raises.

    Args:
        reference: the right option's letter.
        text: the solution.
        choices: the options' texts in the order of their letters, where they are known.
    """
    right = (reference or "").strip("() .").upper()
    nothing = "no final answer: no 'the answer is (A)' and no last lone letter"
    return compare(right or None, extract_choice(text, choices), nothing)


def extract_choice(text: str, choices: Sequence[str] = ()) -> str | None:
    r"""The letter of the option that a solution ends with, or ``None`` where it names none. Never raises.

    In this order: the last ``\boxed{C}``; the last "the answer is (C)", "Answer: C" or the like; the text of an option
    in their place; a last line that is a lone letter, "(C)" or "C."; a last line that is the text of an option. Letters
    without brackets must be capitals, since "a" is a word. A letter beyond the ``choices`` is no answer.
    """
    valid = LETTERS[: len(choices)] if choices else LETTERS
    boxed = boxed_answer(text)
    if boxed is not None:
        return _option(_plain(boxed), choices, valid)
    tail = _plain(text[-_LONGEST_TAIL:])
    named = deque(_NAMED.finditer(tail), 1)
    return (
        _last_letter(_ANSWER, tail, valid)
        or (_option_with_text(named[0]["named"], choices) if named else None)
        or _last_letter(_PRAISED, tail, valid)
        or _option(tail.rpartition("\n")[2], choices, valid)
    )


def is_choice_line(line: str) -> bool:
    """Whether a line names an option and nothing else: ``Answer: (C)``, ``The answer is B.``, ``C.``"""
    plain = _plain(line)
    return bool(plain) and (_ANSWER_LINE.fullmatch(plain) is not None or _LONE_LINE.match(plain) is not None)


def _last_letter(pattern: re.Pattern[str], text: str, valid: str) -> str | None:
    letter = None
    for match in pattern.finditer(text):
        found = (match["inner"] or match["bare"]).upper()
        letter = found if found in valid else letter
    return letter


def _option(line: str, choices: Sequence[str], valid: str) -> str | None:
    """The option that a line is, as its letter (perhaps with the text behind it) or as its text alone."""
    lone = _LONE.match(line)
    if lone is not None and (letter := (lone["inner"] or lone["bare"]).upper()) in valid:
        return letter
    return _option_with_text(line, choices)


def _option_with_text(text: str, choices: Sequence[str]) -> str | None:
    wanted = _words(text)
    found = [letter for letter, choice in zip(LETTERS, choices, strict=False) if _words(_plain(choice)) == wanted != ""]
    return found[0] if len(found) == 1 else None


def _words(text: str) -> str:
    return text.casefold().strip(" '‘’.!:")


def _plain(text: str) -> str:
    """The text without emphasis and quotation marks, each line with single spaces, no line empty."""
    lines = (" ".join(line.split()) for line in _DECORATION.sub("", text).splitlines())
    return "\n".join(line for line in lines if line)
