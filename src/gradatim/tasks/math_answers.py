"""Final answers that are mathematics: finding them in a solution and judging them."""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from gradatim.tasks.base import Verdict, compare, wrong
from gradatim.tasks.math_equality import LONGEST_ANSWER, equal_answers, normal_form

_MOST_CANDIDATES = 20
"""So many of the last boxes or marks are looked at: a looping model writes thousands that are never closed."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?P<brace>\{)?")
_UNBRACED = re.compile(r"[^\s$.,;]+(?:\.[0-9]+)?")
_MARK = re.compile(
    r"\banswers?[ \t*_]{0,6}(?::|=|\b(?:is|are)\b)[ \t*_]{0,6}:?(?![ \t]{0,6}not\b)"
    r"|^(?:[ \t]|[#*_>]|<[a-z0-9]{1,8}>|\\(?:(?:sub)*section|paragraph|textbf|emph)\*?\{){0,8}"
    r"(?:final )?answers?(?:[ \t*_:.}]|</[a-z0-9]{1,8}>){0,8}$|\#{4}",
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
# What may stand between the boxes of one answer: a list goes on, and a name is given its value.
_NAME = r"(?P<name>[A-Za-z](?:_\{?\w{1,3}\}?)?)\s*=\s*"
_LIST_GOES_ON = re.compile(
    r"(?=[^A-Za-z]*(?:,|;|\band\b|\bor\b|\\qquad))"
    rf"(?:[\s$,;]|\\[()\[\],;: ]|\\q?quad|\\text\s*\{{\s*(?:and|or)\s*\}}|\b(?:and|or)\b)*(?:{_NAME})?"
)
_NAMED = re.compile(rf"(?<![A-Za-z\\]){_NAME}\Z")
_LONGEST_BETWEEN = 60
# Where a sentence stops stating the answer, and where it begins to.
_REASON = re.compile(r",?\s+(?:which|since|because|where|when|so|as)\b")
_STATES = re.compile(r"\s*(?:\b(?:is|are|equals|be)\b(?:\s+equal to\b)?|=)\s*:?\s*")
_ADVERBS = re.compile(r"\A\s*(?:(?:exactly|just|simply|therefore|thus|indeed|clearly)\b,?\s*)+", re.IGNORECASE)
_ARTICLE = re.compile(r"\s*(?:the|an?)\b", re.IGNORECASE)
_BARE_NUMBER = r"[-+\u2212]?\d[\d.,/]*"
_MARKUP = re.compile(r"</?[a-z0-9]{1,8}>")
_DELIMITER = re.compile(r"(?<!\\)\$\$?|\\[()\[\]]")
_SENTENCE = re.compile(r"(?:[^\n.!?]|[.!?](?=[^\s*]))*")


def verify_math(reference: str | None, text: str) -> Verdict:
    r"""Judge a solution by its final answer, which stands in ``\boxed{}`` (see :func:`extract_math_answer`).

    Never raises on any text and ends within seconds, in any thread.

    Raises:
        GradatimError: if ``math-verify`` is not installed.
    """
    answer = extract_math_answer(text)
    reference = (reference or "").strip() or None
    if reference is None or answer is None:
        return compare(reference, answer, "no final answer: nothing in \\boxed{} and no 'answer is'")
    if equal_answers(reference, answer):
        return Verdict(1.0, "correct")
    return wrong(normal_form(answer), normal_form(reference))


def math_answer(text: str) -> str | None:
    """The final answer of a solution in its :func:`~gradatim.tasks.math_equality.normal_form`. Never raises.

    Raises:
        GradatimError: if ``math-verify`` is not installed.
    """
    answer = extract_math_answer(text)
    return None if answer is None else normal_form(answer)


def extract_math_answer(text: str) -> str | None:
    r"""The final answer as it is written, or ``None`` where there is none. Never raises.

    The last ``\boxed{...}`` counts, together with those before it in one list ("``\boxed{2}`` and ``\boxed{3}``"). A
    text without one falls back on what follows the last "answer is", "Answer:", heading "Final Answer" or ``####``:
    formulas, what the sentence states ("The largest $n$ is 34."), or the rest of the sentence. A mere last number is no
    answer: a solution that breaks off would be right by chance.
    """
    return boxed_answer(text) or _after_mark(text)


def boxed_answer(text: str) -> str | None:
    r"""What the last complete boxes of a text hold: ``2, 3`` for "x = ``\boxed{2}`` or x = ``\boxed{3}``".

    Boxes are one answer where only commas, "and", "or" and names stand between them. Where the names differ, they stay:
    ``x = 2, y = 3``.
    """
    boxes = _boxes(text)
    first = len(boxes) - 1
    names = []
    while first > 0:
        between = text[boxes[first - 1].end : boxes[first].start]
        goes_on = _LIST_GOES_ON.fullmatch(between) if len(between) <= _LONGEST_BETWEEN else None
        if goes_on is None:
            break
        names.append(goes_on["name"])
        first -= 1
    listed = boxes[max(first, 0) :]
    if len(listed) < 2:
        return listed[0].content if listed else None
    named = _NAMED.search(text[max(0, listed[0].start - _LONGEST_BETWEEN) : listed[0].start].rstrip(" $"))
    names = [named["name"] if named else None, *reversed(names)]
    if len(set(names)) > 1 and None not in names:
        return ", ".join(f"{name} = {box.content}" for name, box in zip(names, listed, strict=True))
    return ", ".join(dict.fromkeys(box.content for box in listed))


class _Box(NamedTuple):
    start: int
    end: int
    content: str


def _boxes(text: str) -> list[_Box]:
    r"""The last complete boxes (``\boxed{...}``, ``\fbox{...}`` or ``\boxed 5``) that are not empty, in their order."""
    found = []
    for box in deque(_BOX.finditer(text), _MOST_CANDIDATES):
        rest = text[box.end() : box.end() + LONGEST_ANSWER + 1]
        if box["brace"]:
            content = _to_closing_brace(rest)
            end = box.end() + len(content or "") + 1
        else:
            unbraced = _UNBRACED.match(rest)
            content = None if unbraced is None else unbraced[0]
            end = box.end() + len(content or "")
        if content and content.strip():
            found.append(_Box(box.start(), end, content.strip()))
    return found


def last_boxed(text: str) -> str | None:
    r"""What stands in the last complete ``\boxed{...}`` (or ``\fbox{...}``, or ``\boxed 5``) of a text."""
    boxes = _boxes(text)
    return boxes[-1].content if boxes else None


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
        rest = _MARKUP.sub("", text[mark.end() : mark.end() + LONGEST_ANSWER + 1]).lstrip(" \t*_:").lstrip("> \n\r\t")
        listed = re.sub(r"(?:\s|,)+(?:and|or)\b\s*", ", ", _DELIMITER.sub(" ", _stated(rest)))
        answer = " ".join(listed.split()).strip("*_, ")
        if answer:
            return answer
    return None


def _stated(rest: str) -> str:
    """What the sentence states with which a text begins: its formulas, what stands behind its verb, or all of it."""
    sentence = _SENTENCE.match(rest)
    assert sentence is not None  # it matches the empty text
    formulas = _FORMULAS.match(rest)
    if formulas is not None and _STATES.match(rest, formulas.end()) is None:
        return formulas[0]
    statement = _ADVERBS.sub("", _REASON.split(sentence[0], maxsplit=1)[0])
    verbs = _verbs(statement)
    if verbs and verbs[-1].end() < len(statement.rstrip()):
        before, behind = statement[: verbs[0].start()], statement[verbs[-1].end() :]
        if re.search(r"\d", statement[verbs[0].end() : verbs[-1].start()]):
            return statement  # it states several things
        if re.fullmatch(_BARE_NUMBER, before.strip()) or (_ARTICLE.match(behind) and not _ARTICLE.match(before)):
            return before
        return _stated(behind)
    inside = _FORMULAS.search(statement)
    if inside is None or re.search(r"\d", statement[: inside.start()]):
        return statement
    return inside[0]


def _verbs(statement: str) -> list[re.Match[str]]:
    """Every "is" or "=" outside of formulas."""
    formulas = [found.span() for found in re.finditer(_FORMULA, statement)]
    return [
        verb for verb in _STATES.finditer(statement) if not any(start <= verb.start() < end for start, end in formulas)
    ]
