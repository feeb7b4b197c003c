"""Advantages of steps among their siblings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import NonNegativeFloat

from gradatim.part import part
from gradatim.supervision.advantages import Advantages, RelativeValues
from gradatim.supervision.terms import Term
from gradatim.tree import Tree


@part
class SiblingAdvantages(RelativeValues, Advantages):
    """Steps relative to their siblings, by what the tree expects (TreeRPO, Yang et al., 2025, arXiv:2506.05183).

    A step's value is the mean reward of what was grown below it (the values `backup`); its advantage is made of that
    among the steps after the same prefix, each as often as it was drawn. A term is one step, so that a step counts as
    itself and not with each solution that shares it. Steps come by parent in the order of ``tree.nodes``; those with no
    sibling of another value are left out. On a tree that branches at the prompt alone, by `backup`, the advantage of
    a first step is that of its solution by `trajectory_advantages`, and all later steps have none. With ``normalize:
    mean`` it is what the objective `direct_advantage` regresses (arXiv:2412.18279), by a critic's values or the tree's.
    """

    asks: ClassVar[str] = "no step has siblings whose values differ"

    min_gap: NonNegativeFloat = 0.0
    """By how much the best and the worst of siblings must differ in value: less may be a critic's error."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        for parent in tree.nodes:
            values = [step.scores[self.value] for step in self.valued(parent.children)]
            if values and max(values) - min(values) >= self.min_gap:
                yield from self.among(parent.children)
