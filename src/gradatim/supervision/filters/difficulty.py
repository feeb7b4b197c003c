"""A filter by how often the problem was solved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.search.regrowth.base import REGROWN
from gradatim.supervision.filters.base import Filter
from gradatim.supervision.terms import Term
from gradatim.tree import Tree

_SHARE = "share of right solutions"  # the key in the metadata of a tree that was made of another one
Share = Annotated[float, Field(ge=0, le=1)]


@part
class Difficulty(Filter):
    """Keep what is of problems that are neither too easy nor too hard, by the share of right solutions in the tree.

    Each solution counts as often as it was drawn; those that were grown on afterwards (`regrow`) do not count. Of trees
    without a graded solution nothing is kept.
    """

    least: Share = 0.0
    """The smallest share of right solutions."""
    most: Share = 1.0
    """The largest share of right solutions."""

    def __post_init__(self) -> None:
        if self.most < self.least:
            raise GradatimError(f"difficulty keeps no share from {self.least:g} to {self.most:g}; raise most")

    @property
    def drops(self) -> str:
        return f"of a problem whose share of right solutions is not from {self.least:g} to {self.most:g}"

    def __call__(self, terms: Sequence[Term]) -> list[Term]:
        trees = {id(tree): tree for tree in (term.ends[0].tree for term in terms)}
        shares = {key: share_right(tree) for key, tree in trees.items()}
        return [
            term
            for term in terms
            if (share := shares[id(term.ends[0].tree)]) is not None and self.least <= share <= self.most
        ]


def share_right(tree: Tree) -> float | None:
    """The share of right solutions among those that a tree's search drew; ``None`` if none was graded."""
    if _SHARE in tree.metadata:
        known: float | None = tree.metadata[_SHARE]
        return known
    graded = [leaf for leaf in tree.leaves() if leaf.correct is not None and REGROWN not in leaf.notes]
    drawn = sum(leaf.multiplicity for leaf in graded)
    return sum(leaf.multiplicity for leaf in graded if leaf.correct) / drawn if drawn else None


def note_share_right(tree: Tree, source: Tree) -> None:
    """Note in a tree that was made of ``source`` how difficult the problem was there."""
    tree.metadata[_SHARE] = share_right(source)
