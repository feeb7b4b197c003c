"""Good and bad branches at each step of a right path."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.pairing import pair_of_solutions, round_robin
from gradatim.supervision.rows import preference_rows
from gradatim.supervision.terms import Term
from gradatim.tree import Tree


@part
class ReferenceBranches(Construction):
    """Right branches against wrong ones at each step of a right solution (Chia et al., 2024, arXiv:2410.10858).

    Reasoning Paths Optimization takes a right solution as its reference path and samples several branches from each of
    its beginnings, which are favourable if they end rightly. Here the branches are those that the tree has: a right and
    a wrong solution that both begin as the reference does, and part at the step that follows. The reference path is the
    first right solution of the tree, and one of the favourable branches. Pairs come from the prompt downwards, and use
    branches evenly.
    """

    what: ClassVar[str] = "pairs of branches"
    groups: ClassVar[int] = 2
    has_targets: ClassVar[bool] = True
    asks: ClassVar[str] = "no right solution has a wrong one that parts from it"
    rows = staticmethod(preference_rows)

    max_per_step: PositiveInt | None = 4
    """Pairs of branches at each step of the path at most; `null` for all."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        paths = [leaf.path() for leaf in tree.solutions() if leaf.correct is not None]
        reference = next((path for path in paths if path[-1].correct), [])
        for depth, beginning in enumerate(reference[:-1]):
            paths = [path for path in paths if len(path) > depth + 1 and path[depth] is beginning]
            right = [path for path in paths if path[-1].correct]
            wrong = [path for path in paths if not path[-1].correct]
            parted = (pair for pair in round_robin(right, wrong) if pair[0][depth + 1] is not pair[1][depth + 1])
            yield from (pair_of_solutions(good[-1], bad[-1]) for good, bad in islice(parted, self.max_per_step))
