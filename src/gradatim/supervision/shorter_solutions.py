"""Of right solutions, the shorter ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import preference_rows
from gradatim.supervision.terms import Group, Term
from gradatim.tree import Node, Tree


@part
class ShorterSolutions(Construction):
    """The shortest right solution against longer right ones (*Don't Think Longer, Think Wisely*, arXiv:2505.21765).

    Nothing is said of what is wrong: name `solution_pairs` too, else the policy only learns to be short. A pair's
    targets are the share of the longer one's length that the shorter one saves, and 0, so that a `margin` asks for more
    where more is saved. Longest first. An et al. (2025) segment one long solution, drop the parts that do not help, and
    prefer what is left; here the shorter paths are those that the tree has.
    """

    what: ClassVar[str] = "pairs of right solutions"
    groups: ClassVar[int] = 2
    has_targets: ClassVar[bool] = True
    asks: ClassVar[str] = "no problem has right solutions of which one is so much shorter"
    rows = staticmethod(preference_rows)

    unit: Literal["tokens", "steps"] = "tokens"
    """What length is counted in: `tokens` (characters of solutions that are text), or `steps`."""
    min_saved: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Which share of the longer solution is saved at least."""
    max_pairs: PositiveInt | None = None
    """Pairs of one problem at most; `null` for all."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        lengths = {leaf: self._length(leaf) for leaf in tree.solutions() if leaf.correct}
        if not lengths:
            return
        shortest = min(lengths, key=lambda leaf: lengths[leaf])
        saved = {leaf: 1 - lengths[shortest] / length for leaf, length in lengths.items() if length}
        longer = sorted((leaf for leaf in saved if saved[leaf] > 0), key=lambda leaf: -saved[leaf])
        kept = [leaf for leaf in longer if saved[leaf] >= self.min_saved]
        for leaf in islice(kept, self.max_pairs):
            yield Term(tuple(Group(tuple(end.path()[1:])) for end in (shortest, leaf)), targets=(saved[leaf], 0.0))

    def _length(self, leaf: Node) -> int:
        steps = leaf.path()[1:]
        if self.unit == "steps":
            return len(steps)
        return sum(len(each.step.text if leaf.tree.has_text_steps else each.step.tokens) for each in steps)
