"""Countdown: combine numbers step by step until one is left, and that one is the target.

A problem gives some numbers and a target. Each step takes two of the numbers, writes the result of one operation on
them and lists what is left; when one number is left, the solution ends. All numbers must be used, results are
non-negative integers and divisions are exact::

    Make 50 from 3 5 7 8
     7 * 5 = 35 | 3 8 35
     35 + 8 = 43 | 3 43
     43 + 3 = 46 | 46            <- legal steps, target missed

The task is small enough that the truth about every partial solution can be computed: whether the target can still be
reached, and in how many ways. Step labels, reward models and searches are tested against this truth. (Countdown as a
testbed for search: Gandhi et al., *Stream of Search*, 2024.)
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.tasks.base import Verdict
from gradatim.tasks.generated import GeneratedTask
from gradatim.text.solution_end import SolutionEnd
from gradatim.tree import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Numbers = tuple[int, ...]
Operator = Literal["+", "-", "*", "/"]
OPERATORS: tuple[Operator, ...] = ("+", "-", "*", "/")

_STEP = re.compile(r" ?(\d{1,9}) ([-+*/]) (\d{1,9}) = (\d{1,9}) \|((?: \d{1,9})+)\n?", re.ASCII)
_PROMPT = re.compile(r"Make (\d+) from((?: \d+)+)\n", re.ASCII)
_SPLIT_SHARES = {"test": (0, 10), "validation": (10, 20), "train": (20, 100)}


class Rejection(StrEnum):
    """Why a solution was rejected; a verdict's reason begins with one of these."""

    WRONG_FORMAT = "wrong format"
    NUMBER_NOT_AVAILABLE = "number not available"
    WRONG_ARITHMETIC = "wrong arithmetic"
    WRONG_REMAINDER = "wrong numbers left"
    UNFINISHED = "unfinished"
    TARGET_MISSED = "target missed"


@dataclass(frozen=True, slots=True)
class Move:
    """One combination of two numbers. ``left`` is at least ``right`` (except in 0 / n), so that a move has one form."""

    left: int
    operator: Operator
    right: int
    result: int


def _leaves_one_number(line: str) -> bool:
    step = _STEP.fullmatch(line)
    return step is not None and len(step[5].split()) == 1


@part
class Countdown(GeneratedTask):
    """Reach a number by arithmetic with given ones; problems are generated.

    Splits are disjoint by construction: numbers (in any order) and target decide which split a problem belongs to.
    The first ``count`` problems of a split are the same whatever ``count`` is.
    """

    numbers: Annotated[int, Field(ge=2, le=7)] = 4
    """How many numbers a problem gives; a solution has one step fewer."""
    largest_number: PositiveInt = 20
    """Numbers are drawn from 1 to this."""
    largest_target: PositiveInt = 50
    """Targets are drawn from 1 to this."""
    largest_result: PositiveInt = 100
    """The solution that the generator knows never exceeds this on the way."""
    least_ways: PositiveInt = 1
    """Problems that can be solved in fewer ways than this are left out: with more of them a problem is easier."""
    most_ways: PositiveInt | None = None
    """Problems that can be solved in more ways than this are left out; `null` for no limit."""

    def __post_init__(self) -> None:
        if self.most_ways is not None and self.most_ways < self.least_ways:
            raise GradatimError(
                f"countdown needs a most_ways of at least least_ways; got {self.most_ways} and {self.least_ways}"
            )
        if self.largest_result < self.largest_target:
            raise GradatimError(
                f"countdown needs a largest_result of at least largest_target; got {self.largest_result} and "
                f"{self.largest_target}"
            )

    @property
    def solution_end(self) -> SolutionEnd:
        return SolutionEnd(line=_leaves_one_number)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        from gradatim.tasks.countdown_tokenizer import make_countdown_tokenizer

        return make_countdown_tokenizer(self.largest_result)

    def ask(self, text: str) -> Problem:
        found = re.fullmatch(r"\s*[Mm]ake (\d+) from((?:[ ,]+\d+)+)\s*", text)
        if found is None:
            raise GradatimError(f"{text!r} is no countdown problem; write one like 'Make 50 from 3 5 7 8'")
        return make_problem([int(number) for number in re.findall(r"\d+", found[2])], int(found[1]))

    def demonstrations(self, split: str) -> Iterator[tuple[Problem, str]]:
        """An endless stream of different problems of ``split``, each with one right solution.

        Raises:
            GradatimError: for an unknown split, or when no new problem turns up in 10,000 draws.
        """
        if split not in _SPLIT_SHARES:
            raise GradatimError(f"countdown has the splits {', '.join(_SPLIT_SHARES)}; there is no {split!r}")
        drawn = {name: value for name, value in self.difficulty.items() if name not in ("least_ways", "most_ways")}
        generator = random.Random(f"countdown {self.seed} {split} {drawn}")
        low, high = _SPLIT_SHARES[split]
        seen: set[tuple[Numbers, int]] = set()
        fruitless = 0
        while fruitless < 10_000:
            fruitless += 1
            numbers, moves = self._draw_solution(generator)
            if moves is None:
                continue
            state = (tuple(sorted(numbers)), moves[-1].result)
            if state in seen or not low <= _split_share(*state) < high:
                continue
            seen.add(state)
            if not self._has_wanted_ways(*state):
                continue
            fruitless = 0
            yield make_problem(numbers, moves[-1].result), render_solution(numbers, moves)
        raise GradatimError(
            f"countdown found only {len(seen)} different problems of this difficulty for {split!r}; "
            "ask for fewer or raise the difficulty"
        )

    def _has_wanted_ways(self, numbers: Numbers, target: int) -> bool:
        if self.least_ways == 1 and self.most_ways is None:
            return True
        ways = count_ways(numbers, target)
        return self.least_ways <= ways and (self.most_ways is None or ways <= self.most_ways)

    def _draw_solution(self, generator: random.Random) -> tuple[Numbers, list[Move] | None]:
        """Random numbers and random moves to a target; no moves if they left the bounds of the difficulty."""
        numbers = tuple(generator.randint(1, self.largest_number) for _ in range(self.numbers))
        left = numbers
        moves: list[Move] = []
        while len(left) > 1:
            first, second = generator.sample(left, 2)
            larger, smaller = max(first, second), min(first, second)
            operator = generator.choice(OPERATORS)
            result = _evaluate(larger, operator, smaller)
            if result is None or not 0 < result <= self.largest_result:
                return numbers, None
            moves.append(Move(larger, operator, smaller, result))
            left = apply_move(left, moves[-1])
        return numbers, moves if left[0] <= self.largest_target else None

    def answer(self, problem: Problem, text: str) -> str | None:
        """The calculation: the steps as they are written, right or wrong, whatever their order. (The number at the end
        would say nothing, since every solution claims the target.)"""
        return _calculation(self.boundary.split(text))

    def check(self, problem: Problem, text: str) -> Verdict:
        """Reward 1 for legal steps that end at the target; otherwise 0 and the reason, beginning with a Rejection."""
        numbers, target = parse_problem(problem)
        left, rejection = _walk(numbers, self.boundary.split(text))
        if rejection is not None:
            return Verdict(0.0, rejection)
        if len(left) > 1:
            return Verdict(0.0, f"{Rejection.UNFINISHED}: {_listed(left)} are still left")
        if left[0] != target:
            return Verdict(0.0, f"{Rejection.TARGET_MISSED}: ended with {left[0]} instead of {target}")
        return Verdict(1.0, "correct")

    def ways(self, problem: Problem, text: str) -> int:
        """In how many ways the partial solution ``text`` can be completed rightly: distinct sequences of moves, where
        the order of equal numbers and of the two sides of a move does not count. A right whole solution has one way
        (to stop); an illegal one has none."""
        numbers, target = parse_problem(problem)
        left, rejection = _walk(numbers, self.boundary.split(text))
        return 0 if rejection is not None else count_ways(tuple(sorted(left)), target)

    def reachable(self, problem: Problem, text: str) -> bool:
        """Whether the target can still be reached from the partial solution ``text``."""
        return self.ways(problem, text) > 0

    def first_error(self, problem: Problem, steps: Sequence[str]) -> int | None:
        """Index of the first step that is illegal or after which the target cannot be reached, or ``None``."""
        text = ""
        for index, step in enumerate(steps):
            text += step
            if not self.reachable(problem, text):
                return index
        return None


def make_problem(numbers: Sequence[int], target: int) -> Problem:
    """The problem of reaching ``target`` from ``numbers``."""
    listed = _listed(numbers)
    return Problem(
        id=f"countdown-{listed.replace(' ', '-')}-{target}",
        prompt=f"Make {target} from {listed}\n",
        answer=str(target),
        data={"numbers": list(numbers), "target": target},
    )


def parse_problem(problem: Problem) -> tuple[Numbers, int]:
    """The numbers and the target of a problem.

    Raises:
        GradatimError: if the problem is not one of countdown.
    """
    match = _PROMPT.fullmatch(problem.prompt)
    if match is None:
        raise GradatimError(f"problem {problem.id!r} is not a countdown problem: {problem.prompt!r}")
    return tuple(int(number) for number in match[2].split()), int(match[1])


def legal_moves(numbers: Numbers) -> list[Move]:
    """All different moves from a multiset of numbers, in a fixed order."""
    moves: dict[Move, None] = {}
    for i, first in enumerate(numbers):
        for second in numbers[i + 1 :]:
            left, right = max(first, second), min(first, second)
            moves[Move(left, "+", right, left + right)] = None
            moves[Move(left, "-", right, left - right)] = None
            moves[Move(left, "*", right, left * right)] = None
            if right and left % right == 0:
                moves[Move(left, "/", right, left // right)] = None
            if left and right == 0:
                moves[Move(right, "/", left, 0)] = None
    return list(moves)


def apply_move(numbers: Numbers, move: Move) -> Numbers:
    """What is left after ``move``, in ascending order."""
    left = list(numbers)
    left.remove(move.left)
    left.remove(move.right)
    return tuple(sorted([*left, move.result]))


@lru_cache(maxsize=1 << 18)
def count_ways(numbers: Numbers, target: int) -> int:
    """How many sequences of moves lead from ``numbers`` (ascending) to ``target`` alone."""
    if len(numbers) == 1:
        return int(numbers[0] == target)
    return sum(count_ways(apply_move(numbers, move), target) for move in legal_moves(numbers))


def render_solution(numbers: Sequence[int], moves: Sequence[Move]) -> str:
    """The text of a solution; its last line has no line end, since the end of the text ends it."""
    left: Numbers = tuple(numbers)
    lines = []
    for move in moves:
        left = apply_move(left, move)
        lines.append(render_step(move, left))
    return "\n".join(lines)


def render_step(move: Move, left: Sequence[int]) -> str:
    """One step without its line end."""
    return f" {move.left} {move.operator} {move.right} = {move.result} | {_listed(left)}"


def _calculation(steps: Sequence[str]) -> str | None:
    """What is calculated, in a form that does not depend on the order of steps or of the sides of ``+`` and ``*``;
    ``None`` where a step cannot be read."""
    operations = []
    for step in steps:
        match = _STEP.fullmatch(step)
        if match is None:
            return None
        left, operator, right, result = int(match[1]), match[2], int(match[3]), int(match[4])
        if operator in "+*":
            left, right = max(left, right), min(left, right)
        operations.append(f"{left} {operator} {right} = {result}")
    return "; ".join(sorted(operations)) or None


def _walk(numbers: Numbers, steps: Sequence[str]) -> tuple[Numbers, str | None]:
    """The numbers left after ``steps``, and the rejection of the first illegal step."""
    left = numbers
    for index, step in enumerate(steps, start=1):
        following, rejection = _take_step(left, step)
        if rejection is not None:
            return left, f"{rejection} (step {index})"
        left = following
    return left, None


def _take_step(numbers: Numbers, step: str) -> tuple[Numbers, str | None]:
    match = _STEP.fullmatch(step)
    if match is None:
        return numbers, f"{Rejection.WRONG_FORMAT}: {step.rstrip()[:80]!r} is not 'a + b = c | numbers left'"
    left, operator, right, result = int(match[1]), match[2], int(match[3]), int(match[4])
    missing = Counter((left, right)) - Counter(numbers)
    if missing:
        return numbers, f"{Rejection.NUMBER_NOT_AVAILABLE}: {_listed(sorted(missing))} is not among {_listed(numbers)}"
    value = _evaluate(left, operator, right)
    if value != result:
        truth = "not a non-negative integer" if value is None else str(value)
        return numbers, f"{Rejection.WRONG_ARITHMETIC}: {left} {operator} {right} is {truth} and not {result}"
    expected = list(numbers)
    expected.remove(left)
    expected.remove(right)
    expected.append(result)
    written = [int(number) for number in match[5].split()]
    if Counter(written) != Counter(expected):
        return numbers, f"{Rejection.WRONG_REMAINDER}: {_listed(sorted(expected))} are left and not {_listed(written)}"
    return tuple(written), None


def _evaluate(left: int, operator: str, right: int) -> int | None:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right if left >= right else None
    if operator == "*":
        return left * right
    return left // right if right and left % right == 0 else None


def _split_share(numbers: Numbers, target: int) -> int:
    """A number from 0 to 99 that decides the split of a problem."""
    digest = hashlib.blake2b(f"{_listed(numbers)} {target}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 100


def _listed(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
