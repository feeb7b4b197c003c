"""Final answers that are one number: finding them in a solution, and comparing them exactly."""

from __future__ import annotations

import re
from fractions import Fraction

from gradatim.tasks.base import NO_REFERENCE, Verdict
from gradatim.tasks.calculator import UNSIGNED_NUMBER, read_number

# An amount: sign, currency, whole part of a mixed number, number, denominator.
_AMOUNT = re.compile(
    r"(?P<sign>(?<![\w)%.])[-\u2212])?(?:[$€£]\s?(?P<inner_sign>-)?)?(?:(?P<whole>[0-9]{1,9})[ ](?=[0-9]{1,9}/[1-9]))?"
    rf"(?P<number>{UNSIGNED_NUMBER})(?:/(?P<denominator>[0-9]+))?"
)
# What shows that an amount is only a part of a calculation, a list, a range or a time of day.
_GOES_ON = re.compile(r"\s*(?:\+|[*\u00d7]\s*[\w($]|[/\u00f7]\s*[0-9($]|x\s?[0-9]|[-\u2212\u2013]\s*[0-9$])|[,:.][0-9]")
_GOES_BEFORE = re.compile(r"[0-9)%]\s?[-+*/:x\u2212\u2013\u00d7\u00f7]\s?\Z")
# The number must come first after the mark: "#### Step 2" is a heading, not an answer.
_ANSWER_MARK = re.compile(r"####[^\w\n.$€£\u2212-]*|^[^\w\n]*A:[^\w\n.$€£\u2212-]*", re.MULTILINE)
# A line whose end is the answer: "#### 18", "A: 18", "So the answer is 18 apples."
_ANSWER_LINE = re.compile(
    r".*####[^\w\n.$€£\u2212-]*|(?:.*[.!?]\s+)?\W*(?:A:|(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?"
    r"(?:final\s+)?answer\s*(?:is|:|=))[\s:*_(\\]*",
    re.IGNORECASE,
)
# What may stand behind its number: a few words, but no heading ("#### 2. Add the costs") and no further number.
_UNIT = re.compile(r"(?![.):]\s*\w)(?:[^\W\d]|[\s%°'\u2019,$/.!)*_\\-])*\Z")
_LONGEST_UNIT = 40
# A finished annotation, or one in which the text was cut off.
_ANNOTATION = re.compile(r"<<[^<>\n]*(?:>>|(?=\n)|\Z)")


def verify_number(reference: str | None, text: str) -> Verdict:
    """Judge a solution by its final number (see :func:`extract_answer`), exactly. Never raises."""
    answer = extract_answer(text)
    if answer is None:
        reason = "no final answer: no line '#### number' and no single last number"
        return Verdict(None if reference is None else 0.0, None, reason)
    if answer == reference:
        return Verdict(1.0, answer, "correct")
    if reference is None:
        return Verdict(None, answer, NO_REFERENCE)
    expected = extract_answer(f"#### {reference}")
    if expected is None:
        return Verdict(0.0, answer, "the problem has no reference answer that is a number")
    if answer != expected:
        return Verdict(0.0, answer, f"wrong answer: {answer} instead of {expected}")
    return Verdict(1.0, answer, "correct")


def is_answer_line(line: str) -> bool:
    """Whether a line states the final number and nothing else: ``#### 18``, ``A: $18``, ``The answer is 18 apples.``

    Headings (``#### 2. Add the costs``) and sentences that calculate on are none.
    """
    line = _ANNOTATION.sub("", line).replace("**", "").rstrip()
    mark = _ANSWER_LINE.match(line)
    amount = None if mark is None else _AMOUNT.match(line, mark.end())
    if amount is None or _normal_form(amount) is None:
        return False
    rest = line[amount.end() :]
    return len(rest) <= _LONGEST_UNIT and _UNIT.match(rest) is not None


def extract_answer(text: str) -> str | None:
    """The final answer of a solution in its normal form, or ``None`` where there is none. Never raises.

    The last ``#### number`` counts, or the last line ``A: number`` (how the data set's own model solutions end). A
    text without either falls back on its last number; calculator annotations do not count. Thousands commas,
    currency signs, per cent signs, units and markdown emphasis around the number are ignored; a word such as
    "million" is a unit like any other. A calculation, range or time of day (``10+2``, ``3-5``, ``8:40``) is no answer.

    Equal answers have one normal form: a whole number in digits, or a fraction in lowest terms. So ``18``, ``$18.00``
    and ``36/2`` are all ``"18"``, ``-0.5`` is ``"-1/2"``, and ``2 1/2`` is ``"5/2"``.
    """
    text = _ANNOTATION.sub("", text).replace("**", "")
    amount = None
    for mark in _ANSWER_MARK.finditer(text):
        amount = _AMOUNT.match(text, mark.end()) or amount
    if amount is None:
        for candidate in _AMOUNT.finditer(text):
            amount = candidate
        if amount is None or _GOES_BEFORE.search(text, max(0, amount.start() - 6), amount.start()):
            return None
    return _normal_form(amount)


def _normal_form(amount: re.Match[str]) -> str | None:
    """The normal form of a match of ``_AMOUNT``; ``None`` if it is too long, divides by zero or goes on."""
    if _GOES_ON.match(amount.string, amount.end()):
        return None
    value = read_number(amount["number"])
    denominator = Fraction(1)
    if amount["denominator"]:
        denominator = read_number(amount["denominator"]) or Fraction(0)
    if value is None or not denominator:
        return None
    value = value / denominator + int(amount["whole"] or 0)
    return str(-value if amount["sign"] or amount["inner_sign"] else value)
