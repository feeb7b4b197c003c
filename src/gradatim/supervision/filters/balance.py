"""A filter that evens out what is learned from: labels, problems and depths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.supervision.filters.base import Filter, at_most, depth_of
from gradatim.supervision.terms import Term


@part
class Balance(Filter):
    """Keep no more of one kind than of another, chosen by chance: of a tree, of a depth, and of good and bad labels.

    First each tree, then each depth has its share, and then good and bad labels are made equal in number. Only terms of
    one group have a label; pairs and rankings have good and bad in each.
    """

    labels: bool = True
    """Keep equal numbers of good and bad labels."""
    threshold: float = 0.5
    """Above which a label is good."""
    per_tree: PositiveInt | None = None
    """Terms of one tree at most; `null` for all."""
    per_depth: PositiveInt | None = None
    """Terms that begin at one depth at most; `null` for all."""
    seed: int = 0
    """Of what is chosen."""

    def __post_init__(self) -> None:
        if not (self.labels or self.per_tree or self.per_depth):
            raise GradatimError("balance evens out nothing: set labels, per_tree or per_depth")

    @property
    def drops(self) -> str:
        told = {
            f"more than {self.per_tree} of a tree": self.per_tree,
            f"more than {self.per_depth} of a depth": self.per_depth,
            "more good labels than bad, or the reverse": self.labels,
        }
        return "; ".join(what for what, asked in told.items() if asked)

    def __call__(self, terms: Sequence[Term]) -> list[Term]:
        kept = list(terms)
        if self.per_tree is not None:
            kept = at_most(kept, self.per_tree, lambda term: id(term.ends[0].tree), self.seed)
        if self.per_depth is not None:
            kept = at_most(kept, self.per_depth, depth_of, self.seed)
        if not self.labels:
            return kept
        counts = Counter(label for term in kept if (label := self._label(term)) is not None)
        fewer = min(counts[True], counts[False])
        chosen = {
            id(term)
            for term in at_most([term for term in kept if self._label(term) is not None], fewer, self._label, self.seed)
        }
        return [term for term in kept if self._label(term) is None or id(term) in chosen]

    def _label(self, term: Term) -> bool | None:
        """Whether a term's label is good; ``None`` where it has none."""
        return term.targets[0] > self.threshold if len(term.groups) == 1 and term.targets else None
