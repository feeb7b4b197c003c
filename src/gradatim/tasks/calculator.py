"""Checks calculator annotations such as ``<<48/2=24>>`` with exact rational arithmetic.

GSM8K (Cobbe et al., 2021, arXiv:2110.14168) writes each calculation of a solution as ``<<expression=result>>`` and
then the result once more as part of the sentence: ``48/2 = <<48/2=24>>24 clips``. Both copies are checked here. The
expression is read by a recursive-descent parser of numbers and ``+ - * / ( ) %`` (per cent), and nothing else: model
output is never evaluated as code. Whatever the parser cannot read (variables, times of day, words) is left unjudged,
since a checker that guesses would call right steps wrong.

Tolerance: a result with ``d >= 1`` decimals may be the exact value rounded up or down at the last of them; a whole
result must be exact; and :data:`RELATIVE_TOLERANCE` forgives what binary floating point loses. The number in the
sentence may be the result rounded up or down at its last place, whole numbers included (23.33 bags, written as 23),
in per cent (0.25, written as 25%), or without its sign (-5, written as "5 fewer").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

RELATIVE_TOLERANCE = Fraction(1, 10**9)
"""How far a calculator's floating-point output (201.89999999999998 for 201.9) may be from the exact value."""

LONGEST_NUMBER = 100
"""Longest number, in characters, that is read: the endless digits of a looping model are no number."""

# A number as people write it: thousands commas, decimals, an exponent as calculators print it. The number of comma
# groups is bounded so that no text makes the search slow.
UNSIGNED_NUMBER = (
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3}){1,12}(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]{1,2}(?![0-9]))?"
)

_ANNOTATION = re.compile(r"<<([^<>\n]*)>>")
_NUMBER_ONLY = re.compile(rf"\s*[-\u2212]?{UNSIGNED_NUMBER}\s*")
_TOKEN = re.compile(rf"\s*({UNSIGNED_NUMBER}|[-+*/x()%$\u2212\u00d7\u00f7])")
_SAME_OPERATOR = {"x": "*", "\u00d7": "*", "\u00f7": "/", "\u2212": "-"}
# "17 500" may be one number or two ("5 100-meter races"), so both readings are tried.
_WRITTEN = re.compile(
    rf"\s?[$€£]?\s?[-\u2212]?(?P<first>{UNSIGNED_NUMBER})"
    r"(?:/(?P<below>[0-9]+)|(?P<spaced>(?:[ \u00a0\u202f][0-9]{3})+(?![0-9])))?"
)
# What shows that the written number is part of something longer than the result, which is then left unjudged.
_LONGER = re.compile(
    r"\s?[*/+\u00d7\u00f7]|\s?x\s?[0-9]|\s?[-\u2212]\s?[0-9]|[,:.][0-9]|\s?(?:k|thousand|million|billion)\b"
)
_LONGEST_EXPRESSION = 400
_DEEPEST_NESTING = 30


class Finding(StrEnum):
    """What is known of one annotation."""

    RIGHT = "right"
    WRONG_RESULT = "wrong result"  # the two sides of the equals sign differ
    MISCOPIED = "miscopied"  # the calculation is right, but the sentence goes on with another number
    UNREADABLE = "unreadable"  # not plain arithmetic: no judgement

    @property
    def is_error(self) -> bool:
        return self in (Finding.WRONG_RESULT, Finding.MISCOPIED)


@dataclass(frozen=True, slots=True)
class Annotation:
    """One ``<<calculation>>`` of a text.

    Attributes:
        calculation: what stands between the brackets.
        written: the number that the sentence goes on with, as written; empty where there is none.
        finding: whether they are right.
    """

    calculation: str
    written: str
    finding: Finding


class UnreadableError(ValueError):
    """The expression is not plain arithmetic."""


def check_annotations(text: str) -> Iterator[Annotation]:
    """Yield every annotation of ``text`` in order, judged. Never raises."""
    for match in _ANNOTATION.finditer(text):
        written = _WRITTEN.match(text, match.end())
        finding, result = _check_calculation(match[1])
        if finding is Finding.RIGHT and written is not None and not _is_copy(result, written):
            finding = Finding.MISCOPIED
        yield Annotation(match[1], "" if written is None else written[0].strip(), finding)


def read_number(text: str) -> Fraction | None:
    """The value of one number such as ``-1,234.50`` or ``1e-05``; ``None`` if ``text`` is anything else."""
    if len(text) > LONGEST_NUMBER or not _NUMBER_ONLY.fullmatch(text):
        return None
    return Fraction(text.replace(",", "").replace("\u2212", "-"))


def agrees(exact: Fraction, written: str, *, whole_may_be_rounded: bool = False) -> bool:
    """Whether the number ``written`` states the value ``exact`` within the tolerance that the module describes.

    Args:
        exact: the true value.
        written: one number, as in :func:`read_number`.
        whole_may_be_rounded: whether a number without decimals may be rounded like one with decimals.
    """
    value = read_number(written)
    if value is None:
        return False
    difference = abs(value - exact)
    mantissa, _, exponent = written.lower().partition("e")
    decimals = len(mantissa.partition(".")[2].strip())
    rounded = bool(decimals) or whole_may_be_rounded
    unit = Fraction(10) ** (int(exponent or 0) - decimals) if rounded else Fraction(0)
    return difference < unit or difference <= RELATIVE_TOLERANCE * abs(exact)


def evaluate(expression: str) -> Fraction:
    """The exact value of ``expression``: numbers, ``+ - * / ( )`` and ``%`` for per cent (``20%*50`` is 10).

    Raises:
        UnreadableError: if it is anything else, or very long or deeply nested.
        ZeroDivisionError: if it divides by zero.
    """
    if len(expression) > _LONGEST_EXPRESSION:
        raise UnreadableError("the expression is too long")
    parser = _Parser(_tokens(expression))
    value = parser.sum()
    if parser.next:
        raise UnreadableError(f"unexpected {parser.next!r}")
    return value


def _check_calculation(calculation: str) -> tuple[Finding, Fraction]:
    """Judge ``expression=result`` (or a longer chain of equalities) and return the last side's value."""
    sides = calculation.split("=")
    try:
        values = [evaluate(side) for side in sides]
    except UnreadableError:
        return Finding.UNREADABLE, Fraction(0)
    except ZeroDivisionError:
        return Finding.WRONG_RESULT, Fraction(0)
    exact = values[0]
    for side, value in zip(sides[1:], values[1:], strict=True):
        if value != exact and not agrees(exact, side.replace("$", "")):
            return Finding.WRONG_RESULT, values[-1]
    return (Finding.RIGHT if len(sides) > 1 else Finding.UNREADABLE), values[-1]


def _is_copy(result: Fraction, written: re.Match[str]) -> bool:
    """Whether the number that the sentence goes on with is ``result``, or is no statement of it at all."""
    rest = written.string[written.end() : written.end() + 12]
    if _LONGER.match(rest) or read_number(written["first"]) is None:
        return True
    if written["below"]:
        below, above = read_number(written["below"]), read_number(written["first"])
        return above is None or not below or above == abs(result) * below
    readings = [written["first"]]
    if written["spaced"]:
        readings.append(re.sub(r"\s", "", written["first"] + written["spaced"]))
    values = [abs(result)]
    if rest.startswith("%"):
        values.append(100 * abs(result))
    return any(agrees(value, reading, whole_may_be_rounded=True) for value in values for reading in readings)


def _tokens(expression: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    expression = expression.rstrip()
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            raise UnreadableError(f"unexpected {expression[position]!r}")
        position = match.end()
        if match[1] != "$":
            tokens.append(_SAME_OPERATOR.get(match[1], match[1]))
    return tokens


class _Parser:
    """Recursive descent over tokens; the empty string stands for the end."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = [*tokens, ""]
        self._position = 0
        self._depth = 0

    @property
    def next(self) -> str:
        return self._tokens[self._position]

    def _take(self) -> str:
        token = self.next
        self._position += 1
        return token

    def sum(self) -> Fraction:
        value = self._product()
        while self.next in ("+", "-"):
            value = value + self._product() if self._take() == "+" else value - self._product()
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while self.next in ("*", "/"):
            value = value * self._signed() if self._take() == "*" else value / self._signed()
        return value

    def _signed(self) -> Fraction:
        sign = 1
        while self.next in ("+", "-"):
            sign = sign if self._take() == "+" else -sign
        value = self._atom()
        while self.next == "%":
            self._take()
            value /= 100
        return sign * value

    def _atom(self) -> Fraction:
        if not self.next:
            raise UnreadableError("the expression ends too early")
        token = self._take()
        if token == "(":
            return self._nested()
        value = read_number(token)
        if value is None:
            raise UnreadableError(f"unexpected {token!r}")
        return value

    def _nested(self) -> Fraction:
        self._depth += 1
        if self._depth > _DEEPEST_NESTING:
            raise UnreadableError("the expression is nested too deeply")
        value = self.sum()
        if not self.next or self._take() != ")":
            raise UnreadableError("a bracket is not closed")
        self._depth -= 1
        return value
