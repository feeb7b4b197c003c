"""Advantages of steps among all that are as deep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradatim.part import part
from gradatim.supervision.advantages import Advantages, RelativeValues
from gradatim.supervision.terms import Term
from gradatim.tree import Node, Tree


@part
class DepthAdvantages(RelativeValues, Advantages):
    """Steps relative to all steps of their depth in the tree (BranchGRPO, Li et al., 2025, arXiv:2509.06040).

    The rewards of the leaves are averaged upwards (the values `backup`), so that every step has one, and made relative
    within each depth: what a first step is worth is compared with first steps, whatever prefix they follow. From the
    paper, which branches denoising: shared prefixes, rewards fused upwards and advantages by depth; not from it: that
    depth is counted in steps of a solution. A term is one step, weighed by how often it was drawn; steps come by depth.
    At the first depth it is `sibling_advantages`.
    """

    asks: ClassVar[str] = "no two steps of one depth have different values"

    def __call__(self, tree: Tree) -> Iterator[Term]:
        levels: dict[int, list[Node]] = {}
        for node in tree.nodes[1:]:
            levels.setdefault(node.depth, []).append(node)
        for depth in sorted(levels):
            yield from self.among(levels[depth])
