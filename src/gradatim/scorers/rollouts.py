"""Monte-Carlo values: a step is worth the share of the solutions sampled from it that turn out right."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gradatim.policies.base import Policy, Sampling
from gradatim.tasks.base import Task, grade_node
from gradatim.tree import EndReason, Node


class RolloutScorer:
    """Scores a step by the mean reward of solutions that the policy samples from it.

    The labels of Math-Shepherd (Wang et al., 2023, arXiv:2312.08935). Solutions that the tree already has below a node
    count as rollouts, each as often as it was sampled, and only what is missing is sampled, so that deep nodes cost
    little once their ancestors were scored. Scored from the root downwards by a policy at the same sampling settings
    this is unbiased; below a node that a search explored selectively it leans towards what the search preferred.

    A finished step has its own reward. Rollouts that end without an answer (too long, too many steps) are worth 0.
    Rollouts that the budget cut short say nothing and are left out; a node without any other stays unscored.

    Tokens are charged by the policy, as tokens that the policy generated. ``node.counts[name]`` is the number of
    rollouts behind the score.

    Args:
        policy: samples the rollouts.
        task: verifies them.
        rollouts: solutions behind each score, those already in the tree included.
        name: the key in ``node.scores`` and ``node.counts``.
        sampling: how rollouts are sampled; the policy's own way by default.
    """

    def __init__(
        self, policy: Policy, task: Task, rollouts: int = 8, name: str = "rollouts", sampling: Sampling | None = None
    ) -> None:
        if rollouts < 1:
            raise ValueError(f"a value needs at least one rollout, got {rollouts}")
        self.policy = policy
        self.task = task
        self.rollouts = rollouts
        self.name = name
        self.sampling = sampling

    async def score(self, nodes: Sequence[Node]) -> None:
        """Score every node of ``nodes`` that has no score yet; see :class:`gradatim.scorers.base.Scorer`."""
        unscored = [node for node in dict.fromkeys(nodes) if self.name not in node.scores]
        await asyncio.gather(*[self._score(node, _sampled_below(node)) for node in unscored])

    async def _score(self, node: Node, leaves: list[Node]) -> None:
        missing = self.rollouts - len(leaves)
        if node.open and missing > 0:
            sampled = await self.policy.rollout([node], missing, self.sampling)
            leaves = leaves + [leaf for leaf in sampled if not _cut_by_budget(leaf)]
        if leaves:
            node.scores[self.name] = sum(self._reward(leaf) for leaf in leaves) / len(leaves)
            node.counts[self.name] = len(leaves)

    def _reward(self, leaf: Node) -> float:
        grade_node(leaf, self.task)
        return leaf.reward or 0.0


def _sampled_below(node: Node) -> list[Node]:
    """The whole solutions at or below ``node``, each as often as it was sampled."""
    return [
        leaf
        for leaf in node.leaves()
        if not leaf.open and leaf.step.end is not EndReason.BUDGET
        for _ in range(leaf.multiplicity)
    ]


def _cut_by_budget(leaf: Node) -> bool:
    return leaf.step.end is EndReason.BUDGET or (leaf.open and leaf.tree.budget.spent)
