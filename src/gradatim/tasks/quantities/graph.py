"""Quantities that depend on each other: what a word problem is before it is words."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from gradatim.errors import GradatimError

Operator = Literal["+", "-", "*"]
OPERATORS: tuple[Operator, ...] = ("+", "-", "*")
LARGEST_NUMBER = 999_999_999  # that a step can write


@dataclass(frozen=True, slots=True, order=True)
class Quantity:
    """How many of a thing somebody has."""

    owner: str
    thing: str

    def __str__(self) -> str:
        return f"{self.owner}'s {self.thing}"

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """The quantity that ``str`` wrote."""
        owner, _, thing = text.partition("'s ")
        return cls(owner, thing)


Operand = Quantity | int


@dataclass(frozen=True, slots=True)
class Definition:
    """How a quantity follows from others: an operation on two operands, of which the first is a quantity."""

    operator: Operator
    left: Quantity
    right: Operand

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The quantities it rests on: one or two."""
        return (self.left, self.right) if isinstance(self.right, Quantity) else (self.left,)

    def matches(self, operator: str, left: Operand, right: Operand) -> bool:
        """Whether ``left operator right`` is this operation; the order counts only where the result depends on it."""
        if operator != self.operator:
            return False
        ordered = (left, right) == (self.left, self.right)
        return ordered or (operator != "-" and (right, left) == (self.left, self.right))


@dataclass(frozen=True)
class DependencyGraph:
    """The quantities of a problem.

    Attributes:
        given: the quantities whose number is stated.
        derived: the quantities that are defined by others.
        asked: the quantity that is asked for.

    Raises:
        GradatimError: if a quantity has two definitions, rests on one that has none, rests on itself, or is negative
            or beyond what a step can write.
    """

    given: Mapping[Quantity, int]
    derived: Mapping[Quantity, Definition]
    asked: Quantity

    def __post_init__(self) -> None:
        used = itertools.chain([self.asked], *(definition.quantities for definition in self.derived.values()))
        for quantity in used:
            if quantity not in self:
                raise GradatimError(f"the problem never says how many {quantity} are; define every quantity it uses")
        if both := self.given.keys() & self.derived.keys():
            raise GradatimError(f"the problem defines {min(both)} twice; define every quantity once")
        if len(self.values) < len(self.given) + len(self.derived):
            circular = min(self.derived.keys() - self.values.keys())
            raise GradatimError(f"{circular} depend on themselves; define no quantity by itself")

    def __contains__(self, quantity: Quantity) -> bool:
        return quantity in self.given or quantity in self.derived

    @cached_property
    def values(self) -> dict[Quantity, int]:
        """The number of every quantity, in an order in which each can be derived from those before it."""
        values = dict(self.given)
        waiting = dict(self.derived)
        while ready := [quantity for quantity in waiting if all(q in values for q in waiting[quantity].quantities)]:
            for quantity in ready:
                definition = waiting.pop(quantity)
                right = values[definition.right] if isinstance(definition.right, Quantity) else definition.right
                value = calculate(values[definition.left], definition.operator, right)
                if not 0 <= value <= LARGEST_NUMBER:
                    raise GradatimError(f"{quantity} come out as {value}; make every quantity 0 to {LARGEST_NUMBER}")
                values[quantity] = value
        return values

    @property
    def answer(self) -> int:
        """The number that is asked for."""
        return self.values[self.asked]

    @cached_property
    def needed(self) -> frozenset[Quantity]:
        """The quantities that the question depends on, the asked one included, given ones too."""
        found: set[Quantity] = set()
        waiting = [self.asked]
        while waiting:
            quantity = waiting.pop()
            if quantity not in found:
                found.add(quantity)
                waiting += self.derived[quantity].quantities if quantity in self.derived else ()
        return frozenset(found)

    @property
    def operations(self) -> int:
        """How many quantities have to be derived to answer the question."""
        return len(self.needed & self.derived.keys())

    @cached_property
    def structure(self) -> str:
        """The shape of what the question depends on, operators included, names and numbers not.

        Two problems have the same structure exactly if renaming quantities and changing numbers (given or constant)
        turns the needed part of one into that of the other, where ``a + b`` and ``b + a`` are the same. Written as
        nested operations: ``n`` is a given quantity, ``c`` a constant, ``#i`` the i-th quantity met before. Each
        written form lists the graph completely, and the first in the alphabet of all forms stands for it.
        """
        symmetric = [
            quantity
            for quantity in sorted(self.needed & self.derived.keys())
            if self.derived[quantity].operator != "-" and len(self.derived[quantity].quantities) == 2
        ]
        choices = itertools.product((False, True), repeat=len(symmetric))
        return min(self._written({q for q, turn in zip(symmetric, turns, strict=True) if turn}) for turns in choices)

    @cached_property
    def content(self) -> str:
        """What the question depends on, names and numbers included; words, order and distractors not.

        Two problems have the same content exactly if the needed part of one defines the same quantities by the same
        numbers and operations as that of the other, where ``a + b`` and ``b + a`` are the same.
        """

        def write(definition: Definition) -> str:
            operands = [str(definition.left), str(definition.right)]
            return f" {definition.operator} ".join(operands if definition.operator == "-" else sorted(operands))

        lines = [
            f"{quantity} = {write(self.derived[quantity]) if quantity in self.derived else self.given[quantity]}"
            for quantity in sorted(self.needed)
        ]
        return "\n".join([*lines, str(self.asked)])

    def _written(self, turned: set[Quantity]) -> str:
        """The structure where the operands of ``turned`` quantities change places."""
        numbers: dict[Quantity, int] = {}

        def write(operand: Operand) -> str:
            if isinstance(operand, int):
                return "c"
            if operand in numbers:
                return f"#{numbers[operand]}"
            numbers[operand] = len(numbers)
            if operand in self.given:
                return "n"
            definition = self.derived[operand]
            pair: tuple[Operand, Operand] = (definition.left, definition.right)
            first, second = reversed(pair) if operand in turned else pair
            return f"({write(first)}{definition.operator}{write(second)})"

        return write(self.asked)

    def ready(self, known: Mapping[Quantity, int]) -> Iterator[Quantity]:
        """The needed quantities that are not ``known`` and can be derived from those that are."""
        for quantity, definition in self.derived.items():
            if quantity in self.needed and quantity not in known and all(q in known for q in definition.quantities):
                yield quantity


def calculate(left: int, operator: Operator, right: int) -> int:
    """The result of one operation."""
    if operator == "+":
        return left + right
    return left - right if operator == "-" else left * right
