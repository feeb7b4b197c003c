"""Rankings of whole solutions, all of a problem at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.pairing import spread_over
from gradatim.supervision.rows import ranked_rows
from gradatim.supervision.terms import Group, Term
from gradatim.tree import Node, Tree


@part
class SolutionLists(Construction):
    """The solutions of a tree, ranked by outcome and by the values of their steps (TPO, 2024, arXiv:2410.12854).

    A solution's target is half its outcome, 1 if it is right, and half the mean value of its steps, so that values from
    0 to 1 rank every right solution above every wrong one, and more than two ranks are told apart. (In the paper of
    Liao et al. a language model gives solutions such scores.) A group is a whole path; what solutions share cancels in
    differences. Solutions that were cut off or not graded, or have a step without a value, are not used.
    """

    what: ClassVar[str] = "rankings of solutions"
    groups: ClassVar[None] = None
    has_targets: ClassVar[bool] = True
    asks: ClassVar[str] = "no problem has solutions of different worth, each step of which has a value"
    rows = staticmethod(ranked_rows)

    value: str | None = "value"
    """The score that says what a step is worth; `null` ranks by outcomes alone."""
    emphasis: NonNegativeFloat = 0.0
    """How much more a step counts where the value changes: 1 plus this times the change. It is TPO's adaptive reward of
    steps, by values in the place of hidden states."""
    max_length: Annotated[int, Field(ge=2)] | None = None
    """Solutions of a ranking at most, evenly spread from the best to the worst; `null` for all."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        rated = {leaf: target for leaf in tree.solutions() if (target := self._target(leaf)) is not None}
        ranked = sorted(rated, key=lambda leaf: -rated[leaf])
        if ranked and rated[ranked[0]] > rated[ranked[-1]]:
            kept = spread_over(ranked, self.max_length)
            yield Term(tuple(map(self._group, kept)), targets=tuple(rated[leaf] for leaf in kept))

    def _target(self, leaf: Node) -> float | None:
        if leaf.correct is None:
            return None
        if self.value is None:
            return float(leaf.correct)
        steps = leaf.path()[1:]
        values = [step.scores[self.value] for step in steps if self.value in step.scores]
        return (leaf.correct + sum(values) / len(values)) / 2 if len(values) == len(steps) else None

    def _group(self, leaf: Node) -> Group:
        path = leaf.path()
        if not self.emphasis or self.value is None:
            return Group(tuple(path[1:]))
        return Group(tuple(path[1:]), tuple(1 + self.emphasis * self._change(*pair) for pair in pairwise(path)))

    def _change(self, before: Node, step: Node) -> float:
        """By how much a step changed the value; 0 after a prompt without one."""
        assert self.value is not None
        return abs(step.scores[self.value] - before.scores.get(self.value, step.scores[self.value]))
