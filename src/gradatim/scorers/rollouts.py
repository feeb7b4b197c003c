"""Monte-Carlo values: a step is worth the share of the solutions sampled from it that turn out right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt

from gradatim.budget import Account
from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.proportions import pass_at_k
from gradatim.scorers.base import Context, ModelName, ScorerPart, StepScorer
from gradatim.scorers.completions import Completions, check_rollouts, completer, reward_of
from gradatim.tasks.base import Task
from gradatim.tree import Node, Tree


@part
class RolloutsPart(ScorerPart):
    """Monte-Carlo values: the share of right solutions among those completed from a step (arXiv:2312.08935)."""

    verifies: ClassVar[bool] = True

    rollouts: PositiveInt = 8
    """Solutions behind each score, those already in the tree included."""
    until: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Stop earlier where the 95 % interval of the share of right ones is no wider than this; `null` for always all."""
    model: ModelName = "policy"
    """The model that completes them: the policy that is searched with, or another one, a prover."""
    best_of: PositiveInt = 1
    """Score by the chance that one of so many solutions is right: a prover that tries so often."""

    def __post_init__(self) -> None:
        check_rollouts(self.rollouts, self.best_of)

    def open(self, context: Context) -> RolloutScorer:
        policy, account, apart = completer(context, self.model)
        return RolloutScorer(
            policy,
            context.task,
            self.rollouts,
            self.name,
            account=account,
            apart=apart,
            until=self.until,
            best_of=self.best_of,
        )


class RolloutScorer(StepScorer):
    """Scores a step by the mean reward of solutions that the policy samples from it.

    The labels of Math-Shepherd (Wang et al., 2023, arXiv:2312.08935). Where solutions come from, and which count, says
    :class:`gradatim.scorers.completions.Completions`. Scored from the root downwards by a policy at the same sampling
    settings this is unbiased; below a node that a search explored selectively it leans towards what the search
    preferred.

    A finished step has its own reward. Rollouts that end without an answer (too long, too many steps) are worth 0. A
    node without any rollout stays unscored. ``node.counts[name]`` is the number of rollouts behind the score.

    With ``best_of``, an open step is worth the chance that at least one of so many solutions from it is right,
    ``1 - (1 - p) ** best_of``, estimated without bias (:func:`gradatim.proportions.pass_at_k`).

    Args:
        policy: samples the rollouts.
        task: verifies them.
        rollouts: solutions behind each score, those already in the tree included.
        name: the key in ``node.scores`` and ``node.counts``.
        sampling: how rollouts are sampled; the policy's own way by default.
        account: what is charged for the rollouts; by default the policy's own.
        apart: the policy is another one than that which grew the tree, a prover (Setlur et al., "Rewarding Progress",
            2024, arXiv:2410.08146): its solutions lie in a tree of their own, and only its values come back.
        until: stop earlier where the interval of the share of right ones is no wider, once there are ``best_of``.
        best_of: how often a prover tries.

    Raises:
        ValueError: if there are no rollouts.
        GradatimError: if there are fewer rollouts than tries.
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
        until: float | None = None,
        best_of: int = 1,
    ) -> None:
        super().__init__(name)
        self.completions = Completions(
            policy, task, rollouts, until=until, at_least=best_of, sampling=sampling, account=account, apart=apart
        )
        self.best_of = best_of
        check_rollouts(rollouts, best_of)

    @property
    def account(self) -> Account:
        """What is charged for the rollouts."""
        return self.completions.account

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        """The share of right solutions from each node, with how many there are in its counts."""
        scores = []
        for node, solutions in zip(nodes, await self.completions.of(nodes), strict=True):
            score = self._score(node, solutions)
            if score is not None:
                node.counts[self.name] = len(solutions)
            scores.append(score)
        return scores

    def _score(self, node: Node, solutions: Sequence[Node]) -> float | None:
        if self.best_of > 1 and node.open:
            right = sum(bool(each.correct) for each in solutions)
            return pass_at_k(len(solutions), right, self.best_of) if len(solutions) >= self.best_of else None
        return sum(map(reward_of, solutions)) / len(solutions) if solutions else None

    def release(self, tree: Tree) -> None:
        """Forget a prover's solutions of a tree that is done."""
        self.completions.release(tree)
