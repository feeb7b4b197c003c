"""Random dependency graphs of a wanted difficulty."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Protocol

from gradatim.tasks.quantities.graph import OPERATORS, Definition, DependencyGraph, Operator, Quantity, calculate

OWNERS = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Ida", "Kim", "Leo")
THINGS = ("apples", "books", "cards", "coins", "kites", "marbles", "pens", "rings", "shells", "stamps")
_LARGEST_FACTOR = 5


class Difficulty(Protocol):
    """What problems are generated; see :class:`gradatim.tasks.word_problems.WordProblems`."""

    @property
    def distractors(self) -> tuple[int, int]: ...

    @property
    def largest_given(self) -> int: ...

    @property
    def largest_result(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Operation:
    """An operation on the quantity at place ``left`` and the one at place ``right``, or a ``constant``."""

    operator: Operator
    left: int
    right: int | None
    constant: int = 0

    @property
    def places(self) -> set[int]:
        return {self.left} if self.right is None else {self.left, self.right}


@dataclass(frozen=True, slots=True)
class _Draft:
    """A graph whose quantities have no names yet: their values, and the operations that derive some of them, both by
    their place."""

    values: list[int]
    operations: dict[int, _Operation]


def draw_graph(generator: random.Random, difficulty: Difficulty, operations: int) -> DependencyGraph:
    """A random graph whose question needs ``operations``: its shape and numbers first, then names."""
    draft = _draw_needed(generator, difficulty, operations)
    while draft is None:
        draft = _draw_needed(generator, difficulty, operations)
    asked = len(draft.values) - 1
    for _ in range(generator.randint(*difficulty.distractors)):
        if generator.random() < 0.5:
            _add_given(generator, difficulty, draft)
        else:
            _add_operation(generator, difficulty, draft, *generator.sample(range(len(draft.values)), 2))
    return _name(generator, draft, asked)


def _draw_needed(generator: random.Random, difficulty: Difficulty, operations: int) -> _Draft | None:
    """Operations of which the last needs all others; ``None`` if this draw did not come out so."""
    draft = _Draft([], {})
    unused: set[int] = set()
    for _ in range(operations):
        left = _draw_operand(generator, difficulty, draft, unused)
        right = _draw_operand(generator, difficulty, draft, unused - {left}) if generator.random() < 0.5 else left
        place = _add_operation(generator, difficulty, draft, left, right)
        unused = (unused - draft.operations[place].places) | {place}
    used = set().union(*(operation.places for operation in draft.operations.values()))
    return draft if len(used) == len(draft.values) - 1 else None  # only the last is not used


def _draw_operand(generator: random.Random, difficulty: Difficulty, draft: _Draft, unused: set[int]) -> int:
    """An operand for the next operation: mostly a result that nothing uses yet, else a new or an old quantity."""
    if unused and generator.random() < 0.6:
        return generator.choice(sorted(unused))
    if draft.values and generator.random() < 0.25:
        return generator.randrange(len(draft.values))
    return _add_given(generator, difficulty, draft)


def _add_given(generator: random.Random, difficulty: Difficulty, draft: _Draft) -> int:
    draft.values.append(generator.randint(2, difficulty.largest_given))
    return len(draft.values) - 1


def _add_operation(generator: random.Random, difficulty: Difficulty, draft: _Draft, left: int, right: int) -> int:
    """Add an operation on two quantities whose result is in bounds; on one and a constant if they are the same one
    or no operation on the two is in bounds."""
    values = draft.values
    if values[left] < values[right]:
        left, right = right, left
    fitting = [
        operator
        for operator in OPERATORS
        if left != right and 1 <= calculate(values[left], operator, values[right]) <= difficulty.largest_result
    ]
    if fitting:
        operator = generator.choice(fitting)
        if operator != "-" and generator.random() < 0.5:
            left, right = right, left
        operation, operand = _Operation(operator, left, right), values[right]
    else:
        operator, operand = _draw_constant(generator, difficulty, values[left])
        operation = _Operation(operator, left, None, operand)
    values.append(calculate(values[left], operator, operand))
    draft.operations[len(values) - 1] = operation
    return len(values) - 1


def _draw_constant(generator: random.Random, difficulty: Difficulty, value: int) -> tuple[Operator, int]:
    """An operation on ``value`` and a constant of at least 2 whose result is in bounds."""
    largest: dict[Operator, int] = {
        "+": min(difficulty.largest_given, difficulty.largest_result - value),
        "-": min(difficulty.largest_given, value - 1),
        "*": min(_LARGEST_FACTOR, difficulty.largest_result // value),
    }
    operator = generator.choice([operator for operator in OPERATORS if largest[operator] >= 2])
    return operator, generator.randint(2, largest[operator])


def _name(generator: random.Random, draft: _Draft, asked: int) -> DependencyGraph:
    """Give every quantity a name. Few owners, so that only both words together tell most quantities apart."""
    owners = generator.sample(OWNERS, math.isqrt(len(draft.values)) + 1)
    pairs = [Quantity(owner, thing) for owner in owners for thing in THINGS]
    names = generator.sample(pairs, len(draft.values))
    return DependencyGraph(
        given={names[place]: value for place, value in enumerate(draft.values) if place not in draft.operations},
        derived={
            names[place]: Definition(op.operator, names[op.left], op.constant if op.right is None else names[op.right])
            for place, op in draft.operations.items()
        },
        asked=names[asked],
    )
