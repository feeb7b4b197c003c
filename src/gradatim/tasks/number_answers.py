"""Final answers that are one number: finding them in a solution, and comparing them exactly."""

from __future__ import annotations

import re
from fractions import Fraction

from gradatim.tasks.base import Verdict, compare
from gradatim.tasks.calculator import UNSIGNED_NUMBER, read_number
from gradatim.tasks.math_answers import boxed_answer, first_box_end
from gradatim.tasks.math_notation import plain_number, tidy

# An amount: sign, currency, whole part of a mixed number, number, denominator.
_AMOUNT = re.compile(
    r"(?P<sign>(?<![\w)%.])[-\u2212])?(?:[$€£]\s?(?P<inner_sign>-)?)?(?:(?P<whole>[0-9]{1,9})[ ](?=[0-9]{1,9}/[1-9]))?"
    rf"(?P<number>{UNSIGNED_NUMBER})(?:/(?P<denominator>[0-9]+))?"
)
# What shows that an amount is only a part of a calculation, a list, a range or a time of day.
_GOES_ON = re.compile(
    r"\s*(?:\\(?:sqrt|pi|frac|binom|[a-z]*log|ln|sin|cos|tan)\b|\^|\+|[*\u00d7]\s*[\w($]|[/\u00f7]\s*[0-9($]|x\s?[0-9]|[-\u2212\u2013]\s*[0-9$])|[,:.][0-9]"
)
_GOES_BEFORE = re.compile(r"[0-9)%}]\s?[-+*/:x\u2212\u2013\u00d7\u00f7]\s?\Z")
# ... or stands inside a formula: in a root, an index, a power, behind a letter of a product.
_INSIDE = re.compile(r"[\^_]\s?\{?-?\Z|\\(?!text|mathrm|mathbf|boxed|fbox|mbox)[a-zA-Z]+\s?\{?\Z|\}\s?\{\Z")
_FRACTION = r"\\[dtc]?frac\s?(?:\{\s?(-?[0-9][0-9.,]*)\s?\}|([0-9]))\s?(?:\{\s?([0-9][0-9.,]*)\s?\}|([0-9]))"
# LaTeX in which numbers are written, and the same as plain text.
_LATEX = [
    (re.compile(r"(?<=[0-9])\{,\}(?=[0-9]{3})"), ","),
    (re.compile(r"(?<=[0-9]),?\\!\s?(?=[0-9]{3})|(?<=[0-9])(?:\\[,;: ]|~)(?=[0-9]{3}(?![0-9]))"), ""),
    (re.compile(rf"(?<=[0-9])\s?{_FRACTION}"), r" \1\2/\3\4"),
    (re.compile(_FRACTION), r"\1\2/\3\4"),
    (
        re.compile(r"([0-9])\s?(?:\\times|\\cdot|\u00d7|\*)\s?10\s?\^\s?(?:\{\s?(-?[0-9]{1,2})\s?\}|([0-9])(?![0-9]))"),
        r"\1e\2\3",
    ),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), "\u00d7"),
    (re.compile(r"\\div(?![a-zA-Z])"), "\u00f7"),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\[()\[\]]"), ""),
]
# The number must come first after the mark: "#### Step 2" is a heading, not an answer.
_ANSWER_MARK = re.compile(r"####[^\w\n.$€£\u2212-]*|^[^\w\n]*A:[^\w\n.$€£\u2212-]*", re.MULTILINE)
# A line whose end is the answer: "#### 18", "A: 18", "So the answer is 18 apples."
_ANSWER_LINE = re.compile(
    r".*####[^\w\n.$€£\u2212-]*|(?:.*[.!?]\s+)?\W*(?:A:|(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?"
    r"(?:final\s+)?answer\s*(?:is|:|=))[\s:*_(\\]*",
    re.IGNORECASE,
)
# What may stand behind its number: a few words, but no heading ("#### 2. Add the costs"), no further number, and
# nothing that goes on ("the answer is 2 times the number of dogs", "the answer is 12 eggs, and she sells them").
_UNIT = re.compile(
    r"(?![.):]\s*\w)(?!\s*(?:times|(?:more|less|fewer|older|younger)\s+than|as\s+m\w+\s+as)\b)"
    r"(?!.*,\s+(?:and|but|so|then)\b)(?:[^\W\d]|[\s%°'\u2019,$/.!)*_\\-])*\Z"
)
_LONGEST_UNIT = 40
# A finished annotation, or one in which the text was cut off.
_ANNOTATION = re.compile(r"<<[^<>\n]*(?:>>|(?=\n)|\Z)")


def verify_number(reference: str | None, text: str) -> Verdict:
    """Judge a solution by its final number (see :func:`extract_answer`), exactly. Never raises."""
    answer = extract_answer(text)
    expected = None if reference is None else extract_answer(f"#### {reference}")
    if answer is not None and expected is None and reference is not None:
        return Verdict(0.0, "the problem has no reference answer that is a number")
    return compare(expected or reference, answer, "no final answer: no line '#### number' and no single last number")


def is_answer_line(line: str) -> bool:
    """Whether a line states the final number and nothing else: ``#### 18``, ``A: $18``, ``The answer is 18 apples.``

    Headings (``#### 2. Add the costs``) and sentences that calculate on are none.
    """
    line = _plain(line).rstrip()
    mark = _ANSWER_LINE.match(line)
    amount = None if mark is None else _AMOUNT.match(line, mark.end())
    if amount is None or _normal_form(amount) is None:
        return False
    rest = line[amount.end() :]
    return len(rest) <= _LONGEST_UNIT and _UNIT.match(rest) is not None


def extract_answer(text: str) -> str | None:
    r"""The final answer of a solution in its normal form, or ``None`` where there is none. Never raises.

    The last ``#### number`` or ``\boxed{number}`` counts, or the last line ``A: number`` (how the data set's own model
    solutions end). A text without any falls back on its last number; calculator annotations do not count. Thousands
    commas, currency signs, per cent signs, units and markdown emphasis around the number are ignored; a word such as
    "million" is a unit like any other. Numbers in LaTeX are read (``\frac{36}{2}``, ``8{,}000``); those that are a part
    of a formula are no answer, nor is a calculation, range or time of day (``10+2``, ``3-5``, ``8:40``).

    Equal answers have one normal form: a whole number in digits, or a fraction in lowest terms. So ``18``, ``$18.00``
    and ``36/2`` are all ``"18"``, ``-0.5`` is ``"-1/2"``, and ``2 1/2`` is ``"5/2"``.
    """
    box = first_box_end(text) and boxed_answer(text)
    marks = list(_ANSWER_MARK.finditer(text, text.rfind("boxed"))) if box else []
    if box and not any(_AMOUNT.match(text, mark.end()) for mark in marks):
        return _number_in_box(box)
    text = _plain(text)
    amount = None
    for mark in _ANSWER_MARK.finditer(text):
        amount = _AMOUNT.match(text, mark.end()) or amount
    return _last_number(text) if amount is None else _normal_form(amount)


def _number_in_box(box: str) -> str | None:
    """The number that a box holds, perhaps with a name or a unit: ``x = 18``, ``18 \\text{ dollars}``."""
    content = tidy(box.rpartition("=")[2])
    number = plain_number(content)
    if number is not None:
        return str(number.value)
    content = _plain(content)
    return _last_number(content) if len(_AMOUNT.findall(content)) == 1 else None


def _last_number(text: str) -> str | None:
    amount = None
    for candidate in _AMOUNT.finditer(text):
        amount = candidate
    if amount is None:
        return None
    before = max(0, amount.start() - 12)
    if _GOES_BEFORE.search(text, before, amount.start()) or _INSIDE.search(text, before, amount.start()):
        return None
    return _normal_form(amount)


def _plain(text: str) -> str:
    """The text without annotations and emphasis, and with its numbers in plain text instead of LaTeX."""
    text = _ANNOTATION.sub("", text).replace("**", "")
    if "\\" in text or "{,}" in text:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    return text


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
