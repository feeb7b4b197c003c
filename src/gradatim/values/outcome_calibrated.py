"""Scores of steps, moved by how their solutions ended."""

from __future__ import annotations

from pydantic import Field, FiniteFloat

from gradatim.part import part
from gradatim.scorers.base import Context
from gradatim.supervision.values import judged_ends
from gradatim.tree import Node, Tree
from gradatim.values.base import Values


@part
class OutcomeCalibrated(Values):
    r"""Step scores plus the outcome less their middle (ReNorm, Xu et al., 2025, arXiv:2509.25598).

    .. math:: r'_t = r_t + R - \mu

    for the score :math:`r_t` of a step and the reward :math:`R` of its solution. With both between 0 and 1 and
    :math:`\mu = 1` no step of a wrong solution earns anything and none of a right one costs: what a judge of steps
    likes cannot be worth more than the outcome, and long solutions do not drown it. A step that several solutions share
    has the mean of what it has in each, by how often they were drawn; without a score or a judged solution it has none.
    For the option ``step_reward`` of advantages.
    """

    key: str = "calibrated"
    """The name of the rewards in trees."""
    score: str = Field(default="process_reward", min_length=1)
    """The score of steps that is calibrated."""
    middle: FiniteFloat = 1.0
    """What is taken off, of which half is the middle of scores and half that of rewards."""

    async def __call__(self, tree: Tree, context: Context) -> None:
        sums: dict[Node, float] = {}
        counts: dict[Node, int] = {}
        for end in judged_ends(tree):
            assert end.reward is not None, "it was judged"
            for node in end.path()[1:]:
                sums[node] = sums.get(node, 0.0) + end.multiplicity * end.reward
                counts[node] = counts.get(node, 0) + end.multiplicity
        for node in tree.nodes[1:]:
            node.scores.pop(self.key, None)
            node.counts.pop(self.key, None)
            if node in sums and self.score in node.scores:
                node.scores[self.key] = node.scores[self.score] + sums[node] / counts[node] - self.middle
                node.counts[self.key] = counts[node]
