"""Right against wrong whole solutions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import ClassVar

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import preference_rows
from gradatim.supervision.terms import Group, Term
from gradatim.tree import Node, Tree


@part
class SolutionPairs(Construction):
    """Right solutions against wrong ones: preferences without steps (Rafailov et al., 2023, arXiv:2305.18290).

    Solutions that were cut off or not graded are not used. The order is fixed, and solutions are used evenly, none
    again before all of its kind were.
    """

    what: ClassVar[str] = "pairs of solutions"
    groups: ClassVar[int] = 2
    has_targets: ClassVar[bool] = True
    rows = staticmethod(preference_rows)

    max_pairs: PositiveInt | None = None
    """Pairs of one problem at most; `null` for all."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        right = [leaf for leaf in tree.solutions() if leaf.correct]
        wrong = [leaf for leaf in tree.solutions() if leaf.correct is False]
        for sides in islice(_round_robin(right, wrong), self.max_pairs):
            rewards = tuple(leaf.reward or 0.0 for leaf in sides)
            yield Term(tuple(Group(tuple(leaf.path()[1:])) for leaf in sides), targets=rewards)


def _round_robin(first: Sequence[Node], second: Sequence[Node]) -> Iterator[tuple[Node, Node]]:
    """Every combination once, in an order that uses the elements of each side evenly."""
    if first and second:
        cycle = math.lcm(len(first), len(second))  # after so many pairs the same ones would return: shift by one
        for turn in range(len(first) * len(second)):
            yield first[turn % len(first)], second[(turn + turn // cycle) % len(second)]
