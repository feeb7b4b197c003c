"""Errors put into right solutions of GSM8K, with step labels that are exact by construction.

One error is made at one place, and what follows from it is worked out again: later steps that use the wrong number
calculate with it (the error is *propagated*), or stay as they were. A step of the result is right exactly if it is a
step of the reference solution word for word: a changed step states a number or an operation that is not the
reference's. Whatever cannot be worked out neatly (an ambiguous number, a result with many decimals) is refused, not
guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from random import Random

from experiments.real_text.documents import Solution
from gradatim.tasks.calculator import UNSIGNED_NUMBER, UnreadableError, check_annotations, evaluate, read_number
from gradatim.tasks.gsm8k import extract_answer

_NUMBER = re.compile(rf"(?<![\w.]){UNSIGNED_NUMBER}(?!\w)")
_ANNOTATION = re.compile(r"<<([^<>\n]*)>>")
_OPERATOR = re.compile(r"(?<=[\d)%])(\s*)([-+*/])(\s*\$?)(?=[\d(.])")
_WRITTEN_OPERATOR = re.compile(r"(?<=[\d)%])(\s*)([-+*/x\u00d7\u00f7\u2212])(\s*\$?)(?=[\d(.])")
_CALCULATION_BEFORE = re.compile(r"[-+*/x\u00d7\u00f7\u2212().,$%\d\s]*=\s*\$?\Z")
_OTHER_OPERATORS = {"+": "-*", "-": "+", "*": "+/", "/": "*-"}


class ErrorKind(StrEnum):
    """What goes wrong."""

    WRONG_RESULT = "wrong result"  # <<48/2=26>>26
    MISCOPIED = "miscopied"  # <<48/2=24>>42
    WRONG_OPERAND = "wrong operand"  # another number of the problem takes an operand's place
    WRONG_OPERATOR = "wrong operator"
    SKIPPED_STEP = "skipped step"  # a step is missing, and one of its operands is used for its result
    STOPPED_EARLY = "stopped early"  # the last calculation is missing: an intermediate result is the answer
    WRONG_ANSWER = "wrong answer"  # the last line states another number

    @property
    def is_arithmetic(self) -> bool:
        """Whether the wrong step contradicts itself, so that its annotation alone shows the error."""
        return self in (ErrorKind.WRONG_RESULT, ErrorKind.MISCOPIED)


class _UnsuitableError(Exception):
    """The error cannot be made here with exact labels."""


@dataclass(frozen=True, slots=True)
class _Place:
    """One annotation of a solution: which line, and which annotation of it."""

    line: int
    index: int


def corrupted_solutions(reference: Solution, count: int, random: Random, *, propagated: float = 0.75) -> list[Solution]:
    """Up to ``count`` different wrong solutions of ``reference``'s problem, one error each.

    Args:
        reference: a right solution with calculator annotations, whose last line is ``#### answer``.
        count: how many; there are fewer where no error can be made.
        random: chooses kind, place and number.
        propagated: share of the errors that later steps calculate with.
    """
    found: dict[tuple[str, ...], Solution] = {}
    for _ in range(8 * count):
        if len(found) == count:
            break
        kind = random.choice(list(ErrorKind))
        solution = inject_error(reference, kind, random, propagate=random.random() < propagated)
        if solution is not None:
            found.setdefault(solution.steps, solution)
    return list(found.values())


def inject_error(reference: Solution, kind: ErrorKind, random: Random, *, propagate: bool = True) -> Solution | None:
    """``reference`` with one error of this kind at a random place, or ``None`` where it cannot be made exactly.

    Returns:
        A solution whose labels are 1 for the reference's own steps and 0 for changed ones, and whose outcome says
        whether its final answer is still the reference's. ``source`` is the kind.
    """
    try:
        steps = _inject(reference, kind, random, propagate)
    except (_UnsuitableError, UnreadableError, ZeroDivisionError):
        return None
    kept = Counter(reference.steps)
    labels = tuple(float(step in kept) for step in steps)
    if 0.0 not in labels:
        return None
    wrong = labels.index(0.0)
    contradicts = any(annotation.finding.is_error for annotation in check_annotations(steps[wrong]))
    if contradicts is not kind.is_arithmetic:
        return None
    right = extract_answer("".join(steps)) == extract_answer("".join(reference.steps))
    return replace(reference, steps=steps, labels=labels, outcome=float(right), source=kind.value)


def _inject(reference: Solution, kind: ErrorKind, random: Random, propagate: bool) -> tuple[str, ...]:
    steps = reference.steps
    places = [
        _Place(line, index)
        for line, step in enumerate(steps)
        for index, calculation in enumerate(_ANNOTATION.findall(step))
        if len(_NUMBER.findall(calculation.partition("=")[0])) > 1
    ]
    if not places or not steps[-1].startswith("####"):
        raise _UnsuitableError
    if kind is ErrorKind.WRONG_ANSWER:
        return (*steps[:-1], _wrong_answer(reference, random))
    if kind is ErrorKind.STOPPED_EARLY:
        return _stopped_early(steps, places)
    place = random.choice(places)
    rewriter = _Rewriter(reference)
    if kind is ErrorKind.SKIPPED_STEP:
        if place.line == places[-1].line:  # nothing is calculated after it: that is stopping early
            raise _UnsuitableError
        rewriter.skip(steps[place.line], random)
        return (*steps[: place.line], *map(rewriter.follow, steps[place.line + 1 :]))
    wrong = rewriter.err(kind, steps[place.line], place.index, _numbers_before(reference, place.line), random)
    rest = steps[place.line + 1 :]
    return (*steps[: place.line], wrong, *(map(rewriter.follow, rest) if propagate else rest))


class _Rewriter:
    """Works out what follows from an error: which numbers are now others, and what later steps then say.

    Numbers are told apart by their value. A value that also stands in the question, or that two steps result in, is
    ambiguous and cannot change.
    """

    def __init__(self, reference: Solution) -> None:
        self._changed: dict[Fraction, Fraction] = {}
        results = Counter(
            _value(calculation.rpartition("=")[2])
            for step in reference.steps
            for calculation in _ANNOTATION.findall(step)
            if len(_NUMBER.findall(calculation.partition("=")[0])) > 1
        )
        self._ambiguous = {_value(number) for number in _NUMBER.findall(reference.question)}
        self._ambiguous |= {value for value, count in results.items() if count > 1}

    def follow(self, line: str) -> str:
        """The line with changed numbers for the old ones, and its calculations made again."""
        texts, calculations = _parts(line)
        pieces = [self._text(texts[0])]
        for calculation, text in zip(calculations, texts[1:], strict=True):
            pieces += [self._calculation(calculation), self._text(text)]
        return "".join(pieces)

    def err(self, kind: ErrorKind, line: str, index: int, numbers: Sequence[Fraction], random: Random) -> str:
        """The line with an error in its annotation ``index``; what follows from it in the line is worked out."""
        texts, calculations = _parts(line)
        before, (expression, result) = texts[index], _sides(calculations[index])
        old = _value(result)
        shown = result
        if kind is ErrorKind.WRONG_OPERAND:
            before, expression = _swap_operand(before, expression, numbers, random)
        elif kind is ErrorKind.WRONG_OPERATOR:
            before, expression = _swap_operator(before, expression, random)
        if kind.is_arithmetic:
            new = _near(old, random)
            shown = _written(new, result) if kind is ErrorKind.WRONG_RESULT else result
        else:
            new = evaluate(expression)
            shown = _written(new, result)
        self._change(old, new)
        rest = [f"<<{expression}={shown}>>", self._text(texts[index + 1])]
        for calculation, text in zip(calculations[index + 1 :], texts[index + 2 :], strict=True):
            rest += [self._calculation(calculation), self._text(text)]
        unchanged = [
            f"{text}<<{calculation}>>" for text, calculation in zip(texts[:index], calculations[:index], strict=True)
        ]
        return "".join([*unchanged, before, *rest])

    def skip(self, line: str, random: Random) -> None:
        """Take one of the line's operands for its result from now on."""
        _, calculations = _parts(line)
        if len(calculations) != 1:
            raise _UnsuitableError
        expression, result = _sides(calculations[0])
        self._change(_value(result), _value(random.choice(_NUMBER.findall(expression))))

    def _change(self, old: Fraction, new: Fraction) -> None:
        if old == new or old in self._ambiguous or self._changed.get(old, new) != new:
            raise _UnsuitableError
        self._changed[old] = new

    def _text(self, text: str) -> str:
        return _replace_numbers(text, self._changed)

    def _calculation(self, calculation: str) -> str:
        expression = self._text(calculation.partition("=")[0])
        if expression == calculation.partition("=")[0]:
            return f"<<{calculation}>>"
        _, result = _sides(calculation)
        new = evaluate(expression)
        if new != _value(result):
            self._change(_value(result), new)
        return f"<<{expression}={_written(new, result)}>>"


def _wrong_answer(reference: Solution, random: Random) -> str:
    """The last line with another number of the solution, or one near the right one."""
    last = reference.steps[-1]
    match = _NUMBER.search(last)
    if match is None:
        raise _UnsuitableError
    right = _value(match[0])
    numbers = [number for number in _numbers_before(reference, len(reference.steps) - 1) if number not in (right, 0)]
    new = random.choice(numbers) if numbers and random.random() < 0.5 else _near(right, random)
    return _replace_numbers(last, {right: new})


def _stopped_early(steps: tuple[str, ...], places: Sequence[_Place]) -> tuple[str, ...]:
    """The solution without its last calculating line, with the result before as its answer."""
    line = places[-1].line
    earlier = [place for place in places if place.line < line]
    if not earlier:
        raise _UnsuitableError
    _, result = _sides(_ANNOTATION.findall(steps[earlier[-1].line])[earlier[-1].index])
    return (*steps[:line], f"#### {_written(_value(result), result)}\n")


def _swap_operand(before: str, expression: str, numbers: Sequence[Fraction], random: Random) -> tuple[str, str]:
    old = _value(random.choice(_NUMBER.findall(expression)))
    others = [number for number in dict.fromkeys(numbers) if number not in (old, 0)]
    if not others:
        raise _UnsuitableError
    swap = {old: random.choice(others)}
    return _replace_numbers(before, swap), _replace_numbers(expression, swap)


def _swap_operator(before: str, expression: str, random: Random) -> tuple[str, str]:
    """Another operator in the annotation, and in the calculation that the sentence states before it."""
    operators = list(_OPERATOR.finditer(expression))
    stated = _CALCULATION_BEFORE.search(before)
    start = stated.start() if stated else len(before)
    written = list(_WRITTEN_OPERATOR.finditer(before, start))
    if not operators or len(written) not in (0, len(operators)):
        raise _UnsuitableError
    chosen = random.randrange(len(operators))
    operator = random.choice(_OTHER_OPERATORS[operators[chosen][2]])
    if written:
        before = _replace_span(before, written[chosen].span(2), operator)
    return before, _replace_span(expression, operators[chosen].span(2), operator)


def _numbers_before(reference: Solution, line: int) -> list[Fraction]:
    """The numbers of the question and the results of the steps before ``line``."""
    results = [
        calculation.rpartition("=")[2] for step in reference.steps[:line] for calculation in _ANNOTATION.findall(step)
    ]
    return [_value(number) for number in [*_NUMBER.findall(reference.question), *results]]


def _near(value: Fraction, random: Random) -> Fraction:
    """Another positive number that a slip might make of this one, which is positive and short."""
    if value <= 0 or not _is_short(value):
        raise _UnsuitableError
    unit = Fraction(1) if value.denominator == 1 else Fraction(1, 10 ** _decimals(value))
    candidates = [value + unit * step for step in (-10, -2, -1, 1, 2, 10)] + [value * 10, value / 10]
    candidates += [Fraction("".join(swapped)) * unit for swapped in _transposed(str(int(value / unit)))]
    return random.choice([other for other in candidates if other > 0 and other != value and _is_short(other)])


def _transposed(digits: str) -> list[str]:
    """The number with two neighbouring digits exchanged, at every place where that changes it."""
    return [
        digits[:i] + digits[i + 1] + digits[i] + digits[i + 2 :]
        for i in range(len(digits) - 1)
        if digits[i] != digits[i + 1] and digits[i + 1] != "0"
    ]


def _parts(line: str) -> tuple[list[str], list[str]]:
    """The texts around the annotations of a line, one more than there are annotations, and the annotations."""
    pieces = _ANNOTATION.split(line)
    return pieces[::2], pieces[1::2]


def _sides(calculation: str) -> tuple[str, str]:
    """Expression and result of an annotation with one equals sign."""
    sides = calculation.split("=")
    if len(sides) != 2:
        raise _UnsuitableError
    return sides[0], sides[1]


def _value(number: str) -> Fraction:
    value = read_number(number.strip())
    if value is None:
        raise _UnsuitableError
    return value


def _replace_numbers(text: str, changed: dict[Fraction, Fraction]) -> str:
    def replacement(match: re.Match[str]) -> str:
        new = changed.get(_value(match[0]))
        return match[0] if new is None else _written(new, match[0])

    return _NUMBER.sub(replacement, text)


def _replace_span(text: str, span: tuple[int, int], new: str) -> str:
    return text[: span[0]] + new + text[span[1] :]


def _written(value: Fraction, like: str) -> str:
    """The number in digits, with thousands commas where ``like`` has them."""
    if value <= 0 or not _is_short(value):
        raise _UnsuitableError
    comma = "," if "," in like else ""
    return f"{float(value):{comma}.{_decimals(value)}f}" if value.denominator > 1 else f"{int(value):{comma}d}"


def _is_short(value: Fraction) -> bool:
    return (value * 100).denominator == 1 and value < 10**9


def _decimals(value: Fraction) -> int:
    return next(places for places in range(3) if (value * 10**places).denominator == 1) if _is_short(value) else 2
