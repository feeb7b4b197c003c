"""Rankings of siblings: steps after one prefix, all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.pairing import spread_over
from gradatim.supervision.rows import ranked_rows
from gradatim.supervision.terms import Group, Term
from gradatim.supervision.values import SureStepValues
from gradatim.tree import Tree


@part
class SiblingLists(SureStepValues, Construction):
    """All children of a step, ranked by their values (a branch of TPO's trees, Liao et al., 2024, arXiv:2410.12854).

    What pairs say one by one, a ranking says at once: of two children it is the pair that `sibling_pairs` makes.
    Children of equal values keep their order and are not told apart by losses that read the values. Rankings come in
    the order of ``tree.nodes``.
    """

    what: ClassVar[str] = "rankings of steps"
    groups: ClassVar[None] = None
    has_targets: ClassVar[bool] = True
    asks: ClassVar[str] = "no step has siblings whose values differ"
    rows = staticmethod(ranked_rows)

    min_gap: Annotated[float, Field(ge=0)] = 0.0
    """By how much the values of the best and the worst step of a ranking differ at least."""
    max_length: Annotated[int, Field(ge=2)] | None = None
    """Steps of a ranking at most, evenly spread from the best to the worst; `null` for all."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        for parent in tree.nodes:
            ranked = sorted(self.valued(parent.children), key=lambda child: -child.scores[self.value])
            if len(ranked) < 2 or not self.are_apart(ranked[0], ranked[-1], self.min_gap):
                continue
            kept = spread_over(ranked, self.max_length)
            yield Term(
                tuple(Group((child,)) for child in kept), targets=tuple(child.scores[self.value] for child in kept)
            )
