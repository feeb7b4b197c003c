"""Terms of a loss: which steps of a tree are compared or aimed at."""

from __future__ import annotations

from dataclasses import dataclass

from gradatim.errors import GradatimError
from gradatim.tree import Node


@dataclass(frozen=True, slots=True)
class Example:
    """One term of a loss.

    Attributes:
        groups: sets of nodes whose step log-probabilities are summed: one set for a solution or a labelled step, two
            (chosen, rejected) for a pair. Each is ordered from the root downwards and holds at least one node.
        weight: how much the term counts.
        target: what the objective aims at: a label, or a margin.
    """

    groups: tuple[tuple[Node, ...], ...]
    weight: float = 1.0
    target: float = 0.0


def parting_steps(chosen: Node, rejected: Node) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The steps of the two nodes' paths below the last step that both share.

    Raises:
        GradatimError: if the nodes are of different trees, or one lies on the other's path.
    """
    if chosen.tree is not rejected.tree:
        raise GradatimError("a pair compares steps of two different trees; pair steps of one problem's tree")
    if chosen.parent is rejected.parent and chosen is not rejected and chosen.parent is not None:
        return (chosen,), (rejected,)
    first, second = chosen.path(), rejected.path()
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] is second[shared]:
        shared += 1
    if shared == min(len(first), len(second)):
        raise GradatimError("a pair compares a step with one on its own path; pair steps on different branches")
    return tuple(first[shared:]), tuple(second[shared:])
