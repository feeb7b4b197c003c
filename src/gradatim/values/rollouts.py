"""Values from fresh solutions: what a policy makes of every step."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.scorers.base import Context, ModelName
from gradatim.scorers.rollouts import RolloutsPart
from gradatim.tree import Node, Tree
from gradatim.values.base import Values


@part
class RolloutValues(Values):
    """The share of right solutions among fresh ones completed from a step (Math-Shepherd, 2023, arXiv:2312.08935).

    Steps are valued from the root downwards, so that the solutions of a step serve those below it.
    """

    samples: ClassVar[bool] = True

    rollouts: PositiveInt = 8
    """Solutions that are completed from each step."""
    model: ModelName = "policy"
    """The model that completes them: the policy that is searched with, or another one, a prover."""

    async def __call__(self, tree: Tree, context: Context) -> None:
        scorer = RolloutsPart(rollouts=self.rollouts, model=self.model, key=self.key).open(context)
        levels: dict[int, list[Node]] = {}
        for node in tree.nodes[1:]:
            levels.setdefault(node.depth, []).append(node)
        for depth in sorted(levels):
            await scorer.score(levels[depth])
        scorer.release(tree)
