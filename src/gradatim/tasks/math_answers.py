"""Final answers that are mathematics: finding them in a solution and judging them."""

from __future__ import annotations

import re
from collections import deque

from gradatim.tasks.base import NO_REFERENCE, Verdict
from gradatim.tasks.math_equality import LONGEST_ANSWER, equal_answers, normal_form

_MOST_CANDIDATES = 20
"""So many of the last boxes or marks are looked at: a looping model writes thousands that are never closed."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?P<brace>\{)?")
_UNBRACED = re.compile(r"[^\s$.,;]+(?:\.[0-9]+)?")
_MARK = re.compile(
    r"\banswers?[ \t*]{0,6}(?::|=|\b(?:is|are)\b)[ \t*]{0,6}:?(?![ \t]{0,6}not\b)"
    r"|^\#{1,6}[ \t*]{0,6}(?:final )?answer[ \t*:]{0,6}$|\#{4}",
    re.IGNORECASE | re.MULTILINE,
)
_INSIDE = r"(?:\\[^()\[\]]|[^$\\])+"
_FORMULA = rf"(?:\$\$?{_INSIDE}\$\$?|\\\({_INSIDE}\\\)|\\\[{_INSIDE}\\\])"
_FORMULAS = re.compile(rf"{_FORMULA}(?:(?:\s|,|and\b|or\b)*{_FORMULA})*")
# A line whose end is the answer.
_ANSWER_LINE = re.compile(
    r"(?:.*[.!?]\s+)?[\s*_#]*(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:the|our|my)\s+)?(?:final\s+)?answer"
    rf"[\s*]*(?::|=|\bis\b)[\s*:]*(?:{_FORMULAS.pattern}|[-+\u2212]?[0-9][0-9.,/]*%?)[\s*]*\.?[\s*]*",
    re.IGNORECASE,
)
_DELIMITER = re.compile(r"(?<!\\)\$\$?|\\[()\[\]]")
_SENTENCE = re.compile(r"(?:[^\n.!?]|[.!?](?=[^\s*]))*")


def verify_math(reference: str | None, text: str) -> Verdict:
    r"""Judge a solution by its final answer, which stands in ``\boxed{}`` (see :func:`extract_math_answer`).

    The verdict's ``answer`` is its :func:`~gradatim.tasks.math_equality.normal_form`. Never raises on any text and ends
    within seconds, in any thread.

    Raises:
        GradatimError: if ``math-verify`` is not installed.
    """
    answer = extract_math_answer(text)
    known = reference is not None and reference.strip()
    if answer is None:
        return Verdict(0.0 if known else None, None, "no final answer: nothing in \\boxed{} and no 'answer is'")
    form = normal_form(answer)
    if reference is None or not known:
        return Verdict(None, form, NO_REFERENCE)
    if equal_answers(reference, answer):
        return Verdict(1.0, form, "correct")
    return Verdict(0.0, form, f"wrong answer: {form} instead of {normal_form(reference)}")


def extract_math_answer(text: str) -> str | None:
    r"""The final answer as it is written, or ``None`` where there is none. Never raises.

    The last ``\boxed{...}`` counts. A text without one falls back on what follows the last "answer is", "Answer:" or
    ``####``: formulas, or the rest of the sentence. A mere last number is no answer: a solution that breaks off would
    be right by chance.
    """
    return last_boxed(text) or _after_mark(text)


def last_boxed(text: str) -> str | None:
    r"""What stands in the last complete ``\boxed{...}`` (or ``\fbox{...}``, or ``\boxed 5``) of a text."""
    for box in reversed(deque(_BOX.finditer(text), _MOST_CANDIDATES)):
        rest = text[box.end() : box.end() + LONGEST_ANSWER + 1]
        if box["brace"]:
            content = _to_closing_brace(rest)
        else:
            unbraced = _UNBRACED.match(rest)
            content = None if unbraced is None else unbraced[0]
        if content and content.strip():
            return content.strip()
    return None


def first_box_end(text: str) -> int | None:
    r"""The place after the first complete ``\boxed{...}`` that is not empty, ``None`` where there is none."""
    for box in _BOX.finditer(text):
        rest = text[box.end() : box.end() + LONGEST_ANSWER + 1]
        content = _to_closing_brace(rest) if box["brace"] else None
        if content and content.strip():
            return box.end() + len(content) + 1
    return None


def is_math_answer_line(line: str) -> bool:
    r"""Whether a line states a final answer and nothing else: ``Answer: $18$``, ``The final answer is 3/4.``

    What follows the mark must be one formula or number; a line that explains or calculates on is none.
    """
    return _ANSWER_LINE.fullmatch(line.rstrip()) is not None


def _to_closing_brace(text: str) -> str | None:
    """The text before the brace that closes one opened just before it."""
    depth = 1
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return text[: match.start()]
    return None


def _after_mark(text: str) -> str | None:
    for mark in reversed(deque(_MARK.finditer(text), _MOST_CANDIDATES)):
        rest = text[mark.end() : mark.end() + LONGEST_ANSWER + 1].lstrip(" \t*:").lstrip()
        formulas = _FORMULAS.match(rest)
        if formulas is None:
            sentence = _SENTENCE.match(rest)
            assert sentence is not None  # it matches the empty text
            inside = _FORMULAS.search(sentence[0])
            starts_with_number = inside is not None and re.search(r"\d", sentence[0][: inside.start()])
            formulas = sentence if inside is None or starts_with_number else inside
        listed = re.sub(r"(?:\s|,)+(?:and|or)\b\s*", ", ", _DELIMITER.sub(" ", formulas[0]))
        answer = " ".join(listed.split()).strip("*, ")
        if answer:
            return answer
    return None
