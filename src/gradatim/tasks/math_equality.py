r"""Whether two mathematical answers are equal, and one normal form for equal ones.

Answers are compared by ``math-verify``, which reads LaTeX into sympy expressions: fractions, intervals, sets, matrices,
equations, equivalent expressions. What it would judge too kindly or not at all is decided here before: equal text,
plain numbers (exactly), words, times of day, number bases, and the order in tuples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

from gradatim.tasks.calculator import agrees
from gradatim.tasks.math_process import ask

LONGEST_ANSWER = 500
"""Longest answer, in characters, that is read: what is longer is a derivation."""

FEWEST_DIGITS = 6
"""Significant digits with which a decimal may stand for a value that it only approximates (0.333333 for 1/3)."""

_MACROS = [
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\.?|\\!\s*|\\displaystyle(?![a-zA-Z])"), ""),
    (re.compile(r"(?<!\\)\\[,;: ]|~|\\q?quad(?![a-zA-Z])|\s+"), " "),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\{([^{}\\]*)\\over(?![a-zA-Z])([^{}\\]*)\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\varnothing(?![a-zA-Z])"), r"\\emptyset"),
    (re.compile(r"\u2212"), "-"),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
    (re.compile(r"(?<=\d)\^?\{?\s*\\text\s*\{(?:st|nd|rd|th)\}\s*\}?"), ""),
]
_ONE_NUMBER = re.compile(r"[^(){}\[\]]*\Z")
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?![\d,])")
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|mbox|mathrm|mathbf)\s*\{([^{}]*)\}")
_DROPPED = re.compile(r"\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})|\\degrees?(?![a-zA-Z])|°|\\?[$%]")

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_RATIONAL = re.compile(
    r"(?P<sign>[-+]?)\s*(?:\\?[$€£]\s*)?(?:(?P<whole>\d+)(?:\s*(?=\\frac)|\s+(?=\d+/\d)))?"
    rf"(?:\\frac\s*(?:\{{\s*(?P<above>-?\s*{_NUMBER})\s*\}}|(?P<above_digit>\d))\s*"
    rf"(?:\{{\s*(?P<below>{_NUMBER})\s*\}}|(?P<below_digit>\d))"
    rf"|(?P<number>{_NUMBER})(?:\s*/\s*(?P<denominator>\d+))?)"
    r"(?:\s*(?P<percent>\\?%|percent\b))?(?P<unit>.*)",
    re.ASCII | re.DOTALL,
)
_DEGREE_UNIT = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degrees?|°")
_UNIT = re.compile(r"[A-Za-z]{2,}(?:[ /.-]+[A-Za-z]{2,})*\.?(?:\s*\^\s*\{?[23]\}?)?")
# Words after which a number goes on or is no plain number; what is none of them is a unit.
_NO_UNIT = re.compile(
    r"\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|root|pi|mod|choose|over|times|plus|minus|and|or|to|of|at|by|more|less|"
    r"than|half|hundred|thousand|million|billion|dozen|if|not|[a-z]{2})\b",
    re.IGNORECASE,
)
_SHORT_UNIT = re.compile(r"\b(?:mm|cm|km|ft|in|yd|mi|mg|kg|lb|oz|ml|hr|sq)\b", re.IGNORECASE)
_WORDS = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|mbox|mathrm)\s*\{[^{}0-9]*\}")
_PLAIN_WORDS = re.compile(r"[^\W\d_]{2,}(?:[ ,.'-]+[^\W_]+)*")
_BASE = re.compile(r"[0-9A-Z]+_\{?(\d+)\}?")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?!\d)")


def equal_answers(reference: str, answer: str) -> bool:
    """Whether an answer is the reference answer, perhaps written in another way. Never raises on any text.

    Units, currency signs, degrees and per cent signs may be left out. Numbers must be equal exactly, but a decimal with
    at least :data:`FEWEST_DIGITS` digits may stand for the value that it rounds. Not symmetric: ``x=5`` and ``5`` are
    equal, whichever is the reference, but only a reference interval is equal to an inequality.

    Raises:
        GradatimError: if ``math-verify`` is not installed.
    """
    reference, answer = tidy(reference), tidy(answer)
    if not reference or not answer or max(len(reference), len(answer)) > LONGEST_ANSWER:
        return False
    if _compact(reference) == _compact(answer):
        return True
    judged = _judge_plainly(reference, answer)
    if judged is not None:
        return judged
    aligned = _with_brackets_of(reference, answer)
    return aligned is not None and _equal_by_algebra(reference, aligned)


def normal_form(answer: str) -> str:
    """A form that answers of equal value share, for numbers, words and what computer algebra can read. Never raises.

    Rational numbers are whole numbers or fractions in lowest terms, without units (as in
    :func:`gradatim.tasks.number_answers.extract_answer`); other mathematics is as sympy writes it, ``2*sqrt(3)``; words
    are in small letters. What cannot be read stays as it was written, without its spaces.
    """
    latex = tidy(answer)
    if (number := _read_rational(latex)) is not None:
        return str(number.value)
    plain = _TEXT.sub(r"\1", latex).strip("() .")
    if _PLAIN_WORDS.fullmatch(plain):
        return plain.casefold()
    return (None if len(latex) > LONGEST_ANSWER else _algebraic_form(latex)) or _compact(latex)


def tidy(latex: str) -> str:
    """The answer without delimiters, and one spelling of what has no meaning: spaces, sizes, kinds of fractions."""
    latex = latex[: 4 * LONGEST_ANSWER]
    for pattern, replacement in _MACROS:
        latex = pattern.sub(replacement, latex)
    latex = (
        re.sub(r"\A(?:\\[(\[]|(?<!\\)\$)+|(?:\\[)\]]|(?<!\\)\$)+\Z", "", latex.strip()).strip().rstrip(".,;").strip()
    )
    if _ONE_NUMBER.match(latex):
        latex = _THOUSANDS.sub(lambda number: number[1] + number[2].replace(",", ""), latex)
    return latex


def _judge_plainly(reference: str, answer: str) -> bool | None:
    """The verdict on answers that need no algebra; ``None`` for those that do."""
    numbers = _read_rational(reference), _read_rational(answer)
    if numbers[0] is not None and numbers[1] is not None:
        return _equal_numbers(numbers[0], numbers[1])
    if _WORDS.fullmatch(reference):
        return _letters(reference) == _letters(answer) != ""
    clocks = _CLOCK.search(reference), _CLOCK.search(answer)
    if clocks[0] is not None and clocks[1] is not None:
        halves = {_letters(reference), _letters(answer)} - {clocks[0][0].replace(":", "")}
        return clocks[0][0] == clocks[1][0] and len(halves) < 2
    bases = _BASE.fullmatch(_compact(reference)), _BASE.fullmatch(_compact(answer))
    if bases[0] is not None and bases[1] is not None and bases[0][1] != bases[1][1]:
        return False
    return None


def _compact(latex: str) -> str:
    return _DROPPED.sub("", _TEXT.sub(r"\1", latex)).replace(" ", "")


def _letters(latex: str) -> str:
    return "".join(filter(str.isalnum, _TEXT.sub(r"\1", latex))).casefold()


@dataclass(frozen=True, slots=True)
class _Rational:
    """A rational number, its text if it is written as a decimal (else empty), and whether it is a percentage."""

    value: Fraction
    decimal: str
    percent: bool


def _read_rational(latex: str) -> _Rational | None:
    match = _RATIONAL.fullmatch(_TEXT.sub(r" \1", latex).strip())
    if match is None or len(latex) > LONGEST_ANSWER or not _is_unit(match["unit"]):
        return None
    above = Fraction((match["above"] or match["above_digit"] or match["number"]).replace(" ", ""))
    below = Fraction(match["below"] or match["below_digit"] or match["denominator"] or 1)
    if not below:
        return None
    value = int(match["whole"] or 0) + above / below
    decimal = match["number"] if match["number"] and "." in match["number"] and not match["denominator"] else ""
    return _Rational(-value if match["sign"] == "-" else value, decimal, bool(match["percent"]))


def _is_unit(text: str) -> bool:
    """Whether what follows a number is only its unit. Variables are no unit: ``5xyz`` is not 5."""
    text = _SHORT_UNIT.sub(" unit", _DEGREE_UNIT.sub("", text)).rstrip()
    return not text or (text[0] == " " and _UNIT.fullmatch(text.strip()) is not None and _NO_UNIT.search(text) is None)


def _equal_numbers(reference: _Rational, answer: _Rational) -> bool:
    """Whether two numbers agree; one that alone has a per cent sign may count in per cent or as a share."""
    if _states(reference, answer.value) or _states(answer, reference.value):
        return True
    if reference.percent == answer.percent:
        return False
    percentage, share = (reference, answer) if reference.percent else (answer, reference)
    return percentage.value / 100 == share.value


def _states(number: _Rational, value: Fraction) -> bool:
    if number.value == value:
        return True
    digits = number.decimal.replace(".", "").lstrip("0")
    return len(digits) >= FEWEST_DIGITS and number.value * value > 0 and agrees(abs(value), number.decimal)


def _with_brackets_of(reference: str, answer: str) -> str | None:
    """The answer as a tuple or a list as the reference is one; ``None`` if one is a tuple and the other a set.

    To algebra a list without brackets is a set, so the order of coordinates would not count.
    """
    wanted, given = _list_kind(reference), _list_kind(answer)
    if wanted is None or given is None or wanted == given:
        return answer
    if wanted == "tuple":
        return f"({answer})" if given == "list" else None
    return answer[1:-1] if given == "tuple" else answer


def _list_kind(latex: str) -> str | None:
    r"""``"tuple"`` for ``(a, b)``, ``"set"`` for ``\{a, b\}``, ``"list"`` for ``a, b``; ``None`` for all else."""
    body = latex.replace("\\{", "{").replace("\\}", "}")
    depths = list(accumulate((character in "([{") - (character in ")]}") for character in body))
    commas = {depth for character, depth in zip(body, depths, strict=True) if character == ","}
    if 0 in commas:
        return "list"
    enclosed = min(depths[:-1], default=0) > 0
    return {"()": "tuple", "{}": "set"}.get(body[0] + body[-1]) if enclosed and 1 in commas else None


@lru_cache(maxsize=1 << 16)
def _equal_by_algebra(reference: str, answer: str) -> bool:
    if _algebraic_form(answer) is None:  # not even read in time: comparing it would take as long again
        return False
    return bool(ask(reference=reference, answer=answer).get("equal", False))


@lru_cache(maxsize=1 << 16)
def _algebraic_form(latex: str) -> str | None:
    form = ask(answer=latex).get("form")
    return None if form is None else str(form)
