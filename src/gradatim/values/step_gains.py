"""Rewards of steps that raise the chance of success, at once or soon."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from gradatim.part import part
from gradatim.scorers.base import Context
from gradatim.supervision.values import value_before
from gradatim.tree import Node, Tree
from gradatim.values.base import VALUE, Values


@part
class StepGains(Values):
    r"""By how much a step changes the chance of success (VSRM, Yue et al., 2025, arXiv:2508.10293).

    .. math:: r(s) = \begin{cases} \Delta(s) & \text{if } |\Delta(s)| > \epsilon \\
              \gamma \, \bar r(s') & \text{else} \end{cases}, \qquad \Delta(s) = V(s) - V(\text{before } s)

    for the share of rollouts that succeed, :math:`V`: steps that help are rewarded and those that do harm are punished.
    A step that changes nothing has what the next ones have, discounted once for each step that lies between, as far as
    it is looked ahead, and where nothing comes of it a cost, which is not in the paper. Where several steps follow, it
    is their mean, by how often each was drawn. Without looking ahead it is progress by the policy's own rollouts. For
    the option ``step_reward`` of advantages.
    """

    key: str = "gain"
    """The name of the rewards in trees."""
    value: str = Field(default=VALUE, min_length=1)
    """The score that says how likely success is from a step on."""
    least: NonNegativeFloat = 1e-5
    """The largest change that counts as none."""
    ahead: NonNegativeInt = 4
    """How many steps ahead a change is looked for."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.7
    """What a change one step later is worth."""
    cost: NonNegativeFloat = 0.0
    """What a step costs that nothing comes of."""

    async def __call__(self, tree: Tree, context: Context) -> None:
        changes: dict[Node, float] = {}
        for node in tree.nodes[1:]:
            node.scores.pop(self.key, None)
            node.counts.pop(self.key, None)
            before = value_before(node, self.value)
            if before is not None and self.value in node.scores:
                changes[node] = node.scores[self.value] - before
        for node in changes:
            found = self._ahead(node, changes, self.ahead)
            node.scores[self.key] = -self.cost if found is None else found
            node.counts[self.key] = node.counts.get(self.value, node.multiplicity)

    def _ahead(self, node: Node, changes: dict[Node, float], steps: int) -> float | None:
        """The change that a step makes or, up to so many steps later, leads to; ``None`` where there is none."""
        if abs(changes[node]) > self.least:
            return changes[node]
        following = [child for child in node.children if child in changes] if steps else []
        found = [(child.multiplicity, self._ahead(child, changes, steps - 1)) for child in following]
        if all(each is None for _, each in found):
            return None
        total = sum(count * (each or 0.0) for count, each in found)
        return self.decay * total / sum(count for count, _ in found)
