"""Right solutions against those that were made to err from one of their steps on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradatim.part import part
from gradatim.search.regrowth.controlled_errors import CONTROLLED
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import preference_rows
from gradatim.supervision.terms import Group, Term, parted
from gradatim.tree import Tree


@part
class ControlledPairs(Construction):
    """Right solutions against controlled errors (Step-Controlled DPO: Lu et al., 2024, arXiv:2407.00782).

    The regrowth `controlled_errors` makes the errors. Both sides begin where they part. The
    paper learns from these pairs and from those of whole solutions: name `solution_pairs` beside it.
    """

    what: ClassVar[str] = "pairs of controlled errors"
    groups: ClassVar[int] = 2
    has_targets: ClassVar[bool] = True
    asks: ClassVar[str] = "no right solution was made to err (regrow: controlled_errors, hotter or with a higher limit)"
    made_by: ClassVar[str] = CONTROLLED  # what must be in a recipe's regrow
    rows = staticmethod(preference_rows)

    def __call__(self, tree: Tree) -> Iterator[Term]:
        for error in tree.solutions():
            for right in error.notes.get(CONTROLLED, ()):
                sides = (tree.nodes[right], error)
                groups = tuple(Group(tuple(leaf.path()[1:])) for leaf in sides)
                yield parted(Term(groups, targets=tuple(leaf.reward or 0.0 for leaf in sides)))
