r"""Whether two mathematical answers are equal, and one form that equal ones share.

Both come from one reading of each answer, so that verdicts and votes cannot disagree: two answers are equal if and only
if they have one form. Only three things are judged by more than that, since no vote can know them: what a writing
leaves open (a per cent sign that one side leaves out, a list that may be a tuple), a decimal that rounds the other
answer, and names that differ (``x=5`` has the form of 5, and ``y=5`` too, but they are not equal).

Formulas are read by ``math-verify`` in a process of their own (see :mod:`gradatim.tasks.math_worker`); plain numbers,
words, times of day and numbers with a base are read here.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from gradatim.tasks.calculator import agrees
from gradatim.tasks.math_notation import LONGEST_ANSWER, plain_number, tidy
from gradatim.tasks.math_process import ask

__all__ = ["FEWEST_DIGITS", "LONGEST_ANSWER", "equal_answers", "normal_form", "tidy"]

FEWEST_DIGITS = 6
"""Significant digits with which a decimal may stand for a value that it only approximates (0.333333 for 1/3)."""

_TEXT = re.compile(r"\\(?:text|mbox|mathrm|mathbf)\s*\{([^{}]*)\}")
_WHOLLY_TEXT = re.compile(r"\A\\(?:text|mbox)\s*\{([^{}]*)\}\Z")
_UPRIGHT_WORDS = re.compile(r"(?:\\(?:text|mbox)\s*\{[^{}0-9]*\}\s*)+")
_PLAIN_WORDS = re.compile(r"[^\W\d_]+(?:[ ,.'-]+[^\W_]+)*")
_LONE_LETTER = re.compile(r"\(?\s*([A-Za-z])\s*\)?")
_PRODUCT = re.compile(r"[a-z]{1,3}")
_SHORT_WORDS = frozenset(["yes", "no", "odd", "one", "two", "six", "ten", "all"])
"""Words that are short enough to be products of letters, as ``ab`` is."""
_BASE = re.compile(r"([-+]?[0-9A-Z]+(?:\.[0-9A-Z]+)?)_\{?(\d+)\}?")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?!\d)(?P<half>.*)", re.DOTALL)
_HALF = re.compile(r"([ap])\.?m\.?", re.IGNORECASE)
_MARKS = re.compile(r"\\?[$%]|\^\\circ(?![a-zA-Z])")


@dataclass(frozen=True, slots=True)
class _Reading:
    """What an answer is read as (see :class:`gradatim.tasks.math_forms.Form`).

    Attributes:
        form: the first reading.
        others: further readings that its writing leaves open.
        relation: all of an equation, in one form.
        decimal: its text if it is written as a decimal, else empty.
        value: the value of a real constant, to many digits.
    """

    form: str
    others: tuple[str, ...] = ()
    relation: str | None = None
    decimal: str = ""
    value: Fraction | None = None


def equal_answers(reference: str, answer: str) -> bool:
    """Whether an answer is the reference answer, perhaps written in another way. Never raises on any text. Symmetric.

    Units, currency signs, degrees and per cent signs may be left out. Numbers must be equal exactly, but a decimal with
    at least :data:`FEWEST_DIGITS` digits may stand for the value that it rounds.

    Raises:
        GradatimError: if ``math-verify`` is not installed.
    """
    reference, answer = tidy(reference), tidy(answer)
    if not reference or not answer or max(len(reference), len(answer)) > LONGEST_ANSWER:
        return False
    left, right = _read(reference), _read(answer)
    if left.relation is not None and right.relation is not None:
        return left.relation == right.relation
    return (
        left.form == right.form
        or left.form in right.others
        or right.form in left.others
        or left.relation in (right.form, *right.others)
        or _rounds(left, right)
        or _rounds(right, left)
    )


def normal_form(answer: str) -> str:
    """A form that answers of equal value share. Never raises.

    Rational numbers are whole numbers or fractions in lowest terms, without units (as in
    :func:`gradatim.tasks.number_answers.extract_answer`); other mathematics is written as sympy does, ``2*sqrt(3)``;
    words are in small letters. What cannot be read stays as it was written, without its spaces.

    Raises:
        GradatimError: if ``math-verify`` is not installed.
    """
    return _read(tidy(answer)).form


@lru_cache(maxsize=1 << 16)
def _read(latex: str) -> _Reading:
    """The reading of a tidied answer."""
    if len(latex) > LONGEST_ANSWER:
        return _Reading(_compact(latex))
    if (number := plain_number(_WHOLLY_TEXT.sub(r"\1", latex).strip())) is not None:
        others = (str(number.value),) if number.percent else ()
        value = number.value / 100 if number.percent else number.value
        return _Reading(str(value), others, None, number.decimal, value)
    return _read_words(latex) or _read_clock(latex) or _read_based(latex) or _read_formula(latex)


def _read_words(latex: str) -> _Reading | None:
    words = " ".join(_TEXT.sub(r" \1 ", latex).strip("() .").split()).strip("() .")
    if (letter := _LONE_LETTER.fullmatch(words)) is not None:
        return None if letter[1] in "ei" and words == latex else _Reading(letter[1].casefold())
    if _UPRIGHT_WORDS.fullmatch(latex) and words:
        return _Reading(" ".join(re.findall(r"[^\W_]+", words.casefold())))
    if _PLAIN_WORDS.fullmatch(words) and (words.casefold() in _SHORT_WORDS or not _PRODUCT.fullmatch(words)):
        return _Reading(" ".join(re.findall(r"[^\W_]+", words.casefold())))
    return None


def _read_clock(latex: str) -> _Reading | None:
    """A time of day; the half of the day may be left out."""
    clock = _CLOCK.fullmatch(_TEXT.sub(r"\1", latex).strip())
    if clock is None:
        return None
    time, half = f"{int(clock[1])}:{clock[2]}", clock["half"].strip()
    if not half:
        return _Reading(time)
    named = _HALF.fullmatch(half)
    return None if named is None else _Reading(f"{time} {named[1].lower()}m", (time,))


def _read_based(latex: str) -> _Reading | None:
    """A number that is written in a base, which belongs to it."""
    based = _BASE.fullmatch(_compact(latex))
    return None if based is None else _Reading(f"{based[1]}_{based[2]}")


def _read_formula(latex: str) -> _Reading:
    reply = ask(answer=latex)
    if "form" not in reply:
        return _Reading(_compact(latex))
    value = None if reply["value"] is None else Fraction(reply["value"])
    with contextlib.suppress(ValueError, ZeroDivisionError):  # the form is no fraction
        value = Fraction(reply["form"]) if value is None else value
    return _Reading(reply["form"], tuple(reply["others"]), reply["relation"], "", value)


def _rounds(number: _Reading, exact: _Reading) -> bool:
    """Whether a decimal of many digits states the value of the other answer."""
    digits = number.decimal.replace(".", "").lstrip("0")
    if len(digits) < FEWEST_DIGITS or exact.value is None or number.value is None or number.others:
        return False
    return number.value * exact.value > 0 and agrees(abs(exact.value), number.decimal)


def _compact(latex: str) -> str:
    return _MARKS.sub("", _TEXT.sub(r"\1", latex)).replace(" ", "")
