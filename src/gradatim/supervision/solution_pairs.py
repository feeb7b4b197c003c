"""Right against wrong whole solutions."""

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
    rated_by: str | None = None
    """The score that rates the steps, for losses that weigh them by it (`full_step_dpo`); solutions that have a step
    without it are not used. `null` for none."""

    @property
    def has_step_targets(self) -> bool:
        return self.rated_by is not None

    def __call__(self, tree: Tree) -> Iterator[Term]:
        rated = [leaf for leaf in tree.solutions() if self._is_rated(leaf)]
        right = [leaf for leaf in rated if leaf.correct]
        wrong = [leaf for leaf in rated if leaf.correct is False]
        for sides in islice(round_robin(right, wrong), self.max_pairs):
            yield pair_of_solutions(*sides, self.rated_by)

    def _is_rated(self, leaf: Node) -> bool:
        return self.rated_by is None or all(self.rated_by in step.scores for step in leaf.path()[1:])
