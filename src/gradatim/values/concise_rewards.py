"""Rewards of solutions in which right ones earn more the shorter they are."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from gradatim.part import part
from gradatim.scorers.base import Context
from gradatim.supervision.values import judged_ends
from gradatim.tree import Tree
from gradatim.values.base import Values
from gradatim.values.solution_lengths import LengthUnit, solution_length


@part
class ConciseRewards(Values):
    r"""Length counts only where the answer is right (ConciseR, Song and Zheng, 2025, arXiv:2505.21178).

    .. math:: R'_i = R_i + w \max\left(0, 1 - \frac{n_i}{N}\right)

    for a right solution of length :math:`n_i`, of which the longest is :math:`N`; a wrong one has its reward
    :math:`R_i` as it is. With ``only_if: all_right`` that holds for problems of which every solution is right, and
    others are left as they are: first to walk, then to run, as in the paper. By ``unit: steps`` and ``only_if: right``
    it has the aim of Step Pruner (Wu et al., 2025, arXiv:2510.03805), fewer steps and none rewarded in wrong solutions.
    The linear form is ours. Written at the ends of solutions, for the option ``reward`` of advantages: with it a
    problem that is solved every time has something left to learn.
    """

    key: str = "concise"
    """The name of the rewards in trees."""
    weight: NonNegativeFloat = 0.5
    """What a right solution of no length would earn beside its reward."""
    unit: LengthUnit = "tokens"
    """What length is measured in: `tokens` or `steps`."""
    only_if: Literal["all_right", "right"] = "all_right"
    """When length counts: if `all_right` solutions of the problem are, or for each that is `right`."""
    longest: PositiveInt | None = None
    """The length from which on nothing is earned; `null` for that of the problem's longest right solution."""

    async def __call__(self, tree: Tree, context: Context) -> None:
        ends = judged_ends(tree)
        right = {end: solution_length(end, self.unit) for end in ends if end.correct}
        longest = self.longest or max(right.values(), default=1)
        counts = self.only_if == "right" or len(right) == len(ends)
        for end in ends:
            assert end.reward is not None, "it was judged"
            saved = max(0.0, 1 - right[end] / longest) if counts and end in right else 0.0
            end.scores[self.key] = end.reward + self.weight * saved
            end.counts[self.key] = end.multiplicity
