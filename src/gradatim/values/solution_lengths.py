"""How long solutions are."""

from __future__ import annotations

from typing import Literal

from gradatim.errors import GradatimError
from gradatim.tree import Node

LengthUnit = Literal["tokens", "steps"]


def solution_length(end: Node, unit: LengthUnit) -> int:
    """How long the solution that ends with a step is: its steps, or their tokens without what an environment wrote.

    Raises:
        GradatimError: if tokens are asked for and nobody knows them.
    """
    if unit == "steps":
        return end.depth
    if any(not node.step.tokens for node in end.path()[1:]):
        raise GradatimError(
            f"a solution of problem {end.tree.problem.id!r} is text whose tokens nobody counted; measure its length in "
            "steps, or grow the trees with a policy that runs here"
        )
    return sum(len(node.step.tokens) for node in end.path()[1:])
