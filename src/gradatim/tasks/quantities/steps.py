"""The lines of a solution: derivations, and the answer at the end."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gradatim.tasks.quantities.graph import OPERATORS, DependencyGraph, Operand, Operator, Quantity

_NUMBER = "0|[1-9][0-9]{0,8}"
_NAME = "[A-Z][a-z]{0,30}'s [a-z]{1,30}"
_DERIVATION = re.compile(
    rf"({_NAME}): (?:({_NAME}) )?({_NUMBER}) ([-+*]) (?:({_NAME}) )?({_NUMBER}) = ({_NUMBER})\n?", re.ASCII
)
_ANSWER = re.compile(rf"Answer: ({_NUMBER})\n?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Term:
    """One side of an operation: a number, and the quantity that it is said to be (``None`` for a constant)."""

    quantity: Quantity | None
    number: int

    @property
    def operand(self) -> Operand:
        """What a definition would call it."""
        return self.number if self.quantity is None else self.quantity

    def __str__(self) -> str:
        return str(self.number) if self.quantity is None else f"{self.quantity} {self.number}"


@dataclass(frozen=True, slots=True)
class Derivation:
    """A step that derives one quantity: ``Ann's marbles: Tom's apples 7 + 4 = 11``."""

    quantity: Quantity
    left: Term
    operator: Operator
    right: Term
    result: int

    def __str__(self) -> str:
        return f"{self.quantity}: {self.left} {self.operator} {self.right} = {self.result}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The last line: ``Answer: 11``."""

    number: int

    def __str__(self) -> str:
        return f"Answer: {self.number}"


def read_step(text: str) -> Derivation | Answer | None:
    """What a line says, with or without its line end; ``None`` if it cannot be read."""
    if found := _ANSWER.fullmatch(text):
        return Answer(int(found[1]))
    found = _DERIVATION.fullmatch(text)
    if found is None:
        return None
    quantity, left, left_number, operator, right, right_number, result = found.groups()
    return Derivation(
        Quantity.parse(quantity),
        Term(Quantity.parse(left) if left else None, int(left_number)),
        next(known for known in OPERATORS if known == operator),
        Term(Quantity.parse(right) if right else None, int(right_number)),
        int(result),
    )


def right_step(graph: DependencyGraph, quantity: Quantity) -> Derivation:
    """The step that derives ``quantity`` as the problem defines it."""
    definition = graph.derived[quantity]
    right = definition.right
    return Derivation(
        quantity,
        Term(definition.left, graph.values[definition.left]),
        definition.operator,
        Term(right, graph.values[right]) if isinstance(right, Quantity) else Term(None, right),
        graph.values[quantity],
    )
