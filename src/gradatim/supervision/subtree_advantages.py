"""Advantages of solutions among those that share their beginning, and among all."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveInt

from gradatim.part import part
from gradatim.supervision.advantages import Advantages, Relative, Rewards, Solution, kept
from gradatim.supervision.terms import Term
from gradatim.tree import Node, Tree


@part
class SubtreeAdvantages(Relative, Rewards, Advantages):
    r"""Solutions relative within their subtree and beyond it (Tree-GRPO, Ji et al., 2025, arXiv:2509.21240).

    .. math:: A_i = \hat R_i^{\text{inter}} + \alpha \hat R_i^{\text{intra}}

    for the reward of a solution made relative to all of the problem, and to those of its own subtree. In the paper
    several trees are grown for a problem; here all of a problem is one tree, and what it branches into first are these.
    Every step of a solution has its solution's advantage, and a step that several share counts with each of them: so a
    shared prefix earns what its solutions do on the whole, and what sets them apart earns the difference. With
    :math:`\alpha = 0` it is `trajectory_advantages`.
    """

    has_step_targets: ClassVar[bool] = True
    asks: ClassVar[str] = "no problem has several solutions whose rewards differ"

    intra_weight: NonNegativeFloat = 1.0
    """How much the comparison within a subtree counts."""
    depth: PositiveInt = 1
    """How many steps the solutions of a subtree share."""

    def __call__(self, tree: Tree) -> list[Term]:
        solutions = self.solutions(tree)
        subtrees: dict[Node, list[Solution]] = {}
        for each in solutions:
            subtrees.setdefault(each.steps[min(self.depth, len(each.steps)) - 1], []).append(each)
        inter = self._among(solutions)
        intra = {end: given for part in subtrees.values() for end, given in self._among(part).items()}
        return kept(
            each.term([inter[each.end] + self.intra_weight * intra[each.end]] * len(each.steps)) for each in solutions
        )

    def _among(self, solutions: list[Solution]) -> dict[Node, float]:
        """The advantage of each solution among some, by its end."""
        earned = [sum(self.earned(each)) for each in solutions]
        advantages = self.relative(earned, [each.count for each in solutions])
        return {each.end: given for each, given in zip(solutions, advantages, strict=True)}
