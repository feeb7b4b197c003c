"""Monte-Carlo values: a step is worth the share of the solutions sampled from it that turn out right."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from pydantic import PositiveInt

from gradatim.budget import POLICY, Account
from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.apart import Apart
from gradatim.scorers.base import Context, ModelName, ScorerPart
from gradatim.tasks.base import Task, grade_nodes
from gradatim.tree import EndReason, Node, Tree


@part
class RolloutsPart(ScorerPart):
    """Monte-Carlo values: the share of right solutions among those completed from a step (arXiv:2312.08935)."""

    verifies: ClassVar[bool] = True

    rollouts: PositiveInt = 8
    """Solutions behind each score, those already in the tree included."""
    model: ModelName = "policy"
    """The model that completes them: the policy that is searched with, or another one, a prover."""

    def open(self, context: Context) -> RolloutScorer:
        prover = context.policy(self.model)
        apart = self.model != POLICY.name
        account = Account(self.model) if apart else None
        return RolloutScorer(prover, context.task, self.rollouts, self.name, account=account, apart=apart)


class RolloutScorer:
    """Scores a step by the mean reward of solutions that the policy samples from it.

    The labels of Math-Shepherd (Wang et al., 2023, arXiv:2312.08935). Solutions that the tree already has below a node
    count as rollouts if the same policy wrote them, each as often as it was sampled, and only what is missing is
    sampled, so that deep nodes cost little once their ancestors were scored. Scored from the root downwards by a policy
    at the same sampling settings this is unbiased; below a node that a search explored selectively it leans towards
    what the search preferred.

    A finished step has its own reward. Rollouts that end without an answer (too long, too many steps) are worth 0.
    Rollouts that the budget cut short say nothing and are left out; a node without any other stays unscored.

    Tokens are charged by the policy, to its own account unless another one is named. ``node.counts[name]`` is the
    number of rollouts behind the score.

    Args:
        policy: samples the rollouts.
        task: verifies them.
        rollouts: solutions behind each score, those already in the tree included.
        name: the key in ``node.scores`` and ``node.counts``.
        sampling: how rollouts are sampled; the policy's own way by default.
        account: what is charged for the rollouts; by default the policy's own.
        apart: the policy is another one than that which grew the tree, a prover (Setlur et al., "Rewarding Progress",
            2024, arXiv:2410.08146): its solutions lie in a tree of their own, and only its values come back.
    """

    def __init__(
        self,
        policy: Policy,
        task: Task,
        rollouts: int = 8,
        name: str = "rollouts",
        sampling: Sampling | None = None,
        *,
        account: Account | None = None,
        apart: bool = False,
    ) -> None:
        if rollouts < 1:
            raise ValueError(f"a value needs at least one rollout, got {rollouts}")
        self.policy = policy
        self.task = task
        self.rollouts = rollouts
        self.name = name
        self.sampling = sampling
        self._account = account
        self._apart = Apart(policy) if apart else None

    @property
    def account(self) -> Account:
        """What is charged for the rollouts."""
        return self._account or self.policy.account

    async def score(self, nodes: Sequence[Node]) -> None:
        """Score every node of ``nodes`` that has no score yet; see :class:`gradatim.scorers.base.Scorer`."""
        unscored = [node for node in dict.fromkeys(nodes) if self.name not in node.scores]
        if self._apart is None:
            await self._score(unscored)
            return
        counterparts = {node: self._apart.counterpart(node) for node in unscored}
        await self._score([each for each in dict.fromkeys(counterparts.values()) if self.name not in each.scores])
        for node, counterpart in counterparts.items():
            if self.name in counterpart.scores:
                node.scores[self.name] = counterpart.scores[self.name]
                node.counts[self.name] = counterpart.counts[self.name]

    def release(self, tree: Tree) -> None:
        """Forget a prover's solutions of a tree that is done."""
        of_prover = None if self._apart is None else self._apart.forget(tree)
        if of_prover is not None:
            self.policy.release(of_prover)

    async def _score(self, unscored: Sequence[Node]) -> None:
        solutions = {node: _sampled_below(node, self.policy.source) for node in unscored}
        await self._sample(solutions)
        for node in unscored:
            if solutions[node]:
                await grade_nodes(solutions[node], self.task)
                node.scores[self.name] = sum(leaf.reward or 0.0 for leaf in solutions[node]) / len(solutions[node])
                node.counts[self.name] = len(solutions[node])

    async def _sample(self, solutions: dict[Node, list[Node]]) -> None:
        """Add what is missing to each node's solutions. New ones come in the order of nodes, fewer if the budget
        ends."""
        missing = {node: max(0, self.rollouts - len(known)) for node, known in solutions.items() if node.open}
        sampled = self.policy.extend(
            list(missing), list(missing.values()), steps=None, sampling=self.sampling, account=self._account
        )
        leaves = deque(await sampled)
        for node, count in missing.items():
            for _ in range(count):
                if not leaves or node not in leaves[0].path():
                    break
                leaf = leaves.popleft()
                if not _cut_by_budget(leaf):
                    solutions[node].append(leaf)


def _sampled_below(node: Node, source: str) -> list[Node]:
    """The whole solutions at or below ``node`` that ``source`` wrote from there on, each as often as it was sampled."""
    solutions = []
    waiting = [node]
    while waiting:
        each = waiting.pop()
        waiting.extend(child for child in reversed(each.children) if child.step.source == source)
        if each.is_leaf and not each.open and each.step.end is not EndReason.BUDGET:
            solutions.extend([each] * each.multiplicity)
    return solutions


def _cut_by_budget(leaf: Node) -> bool:
    return leaf.step.end is EndReason.BUDGET or (leaf.open and leaf.tree.budget.spent)
