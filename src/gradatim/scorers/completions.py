"""Whole solutions from given steps: what every value by sampling is made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import chain

from gradatim.budget import POLICY, Account
from gradatim.errors import GradatimError
from gradatim.policies.base import Policy, Sampling
from gradatim.proportions import wilson_interval
from gradatim.scorers.apart import Apart
from gradatim.scorers.base import Context
from gradatim.tasks.base import Task, grade_nodes
from gradatim.tree import EndReason, Node, Tree


class Completions:
    """Completes steps, and verifies what comes of it.

    Solutions that the tree already has below a step count if the same policy wrote them, each as often as it was
    sampled, and only what is missing is sampled, so that deep steps cost little once those above them were completed.
    A step that ends a solution has that one. Solutions that the budget cut short say nothing and are left out, as are
    those that nobody can judge, since their problem has no reference answer.

    With ``until``, solutions are sampled in waves, each as small as could suffice, until the interval of the share of
    right ones (Wilson, 95 %) is no wider: fewer where all agree, but no fewer than ``at_least``. A share that was
    stopped so is a little too extreme.

    Args:
        policy: completes the steps.
        task: verifies the solutions.
        count: solutions from each step, those already in the tree included.
        until: how wide the interval may be with fewer; ``None`` always takes ``count``.
        at_least: how many there must be even so.
        sampling: how they are sampled; the policy's own way by default.
        account: what is charged; by default the policy's own.
        apart: the policy is another one than that which grew the tree, a prover: its solutions lie in a tree of their
            own (:mod:`gradatim.scorers.apart`).

    Raises:
        ValueError: if ``count`` is less than 1.
    """

    def __init__(
        self,
        policy: Policy,
        task: Task,
        count: int,
        *,
        until: float | None = None,
        at_least: int = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
        apart: bool = False,
    ) -> None:
        if count < 1:
            raise ValueError(f"a value needs at least one rollout, got {count}")
        self.policy = policy
        self.task = task
        self.count = count
        self.until = until
        self.at_least = at_least
        self.sampling = sampling
        self._account = account
        self._apart = Apart(policy) if apart else None

    @classmethod
    def by(cls, model: str, context: Context, count: int) -> Completions:
        """Those of a recipe's model; see :func:`completer`."""
        policy, account, apart = completer(context, model)
        return cls(policy, context.task, count, account=account, apart=apart)

    @property
    def account(self) -> Account:
        """What is charged for the solutions."""
        return self._account or self.policy.account

    async def of(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """The graded solutions from each of different nodes, each as often as it was sampled, those that the tree had
        first; fewer than asked for, or none, where the budget ended."""
        places = [self._place(node) for node in nodes]
        found = {place: _written_below(place, self.policy.source) for place in places}
        await grade_nodes(chain(*found.values()), self.task)
        waiting = [place for place in found if place.open]
        while asked := {place: missing for place in waiting if (missing := self._missing(found[place]))}:
            sampled = await self._sample(asked)
            for place, solutions in sampled.items():
                found[place] += solutions
            waiting = [place for place in asked if len(sampled[place]) == asked[place]]
        return [_judged(found[place]) for place in places]

    async def fresh(self, node: Node) -> list[Node]:
        """As :meth:`of`, for one open node and without what the tree has: what was completed from a step below it was
        sampled there since something is known of it, and says too much of that step."""
        place = self._place(node)
        return _judged((await self._sample({place: self.count}))[place])

    def known(self, node: Node) -> list[Node]:
        """The graded solutions that there are already from a node."""
        return _judged(_written_below(self._place(node), self.policy.source))

    def release(self, tree: Tree) -> None:
        """Forget a prover's solutions of a tree that is done."""
        of_prover = None if self._apart is None else self._apart.forget(tree)
        if of_prover is not None:
            self.policy.release(of_prover)

    def _place(self, node: Node) -> Node:
        return node if self._apart is None else self._apart.counterpart(node)

    def _missing(self, known: Sequence[Node]) -> int:
        missing = max(0, self.count - len(known))
        if self.until is None or not missing:
            return missing
        judged = _judged(known)
        more = fewest_more(sum(map(reward_of, judged)), len(judged), self.until, missing)
        return min(missing, max(more, self.at_least - len(judged)))

    async def _sample(self, asked: dict[Node, int]) -> dict[Node, list[Node]]:
        """New solutions from each node, graded; fewer than asked for where the budget ends."""
        sampled: dict[Node, list[Node]] = {node: [] for node in asked}
        drawn = deque(
            await self.policy.extend(
                list(asked), list(asked.values()), steps=None, sampling=self.sampling, account=self._account
            )
        )
        for node, count in asked.items():
            for _ in range(count):
                if not drawn or node not in drawn[0].path():
                    break
                leaf = drawn.popleft()
                if not _cut_by_budget(leaf):
                    sampled[node].append(leaf)
        await grade_nodes(chain(*sampled.values()), self.task)
        return sampled


def completer(context: Context, model: str) -> tuple[Policy, Account | None, bool]:
    """What runs a recipe's model, what it is charged to and whether its solutions lie apart: those of the policy that
    is searched with are in the tree, any other's apart and under an account of its name."""
    if model == POLICY.name:
        return context.policy(model), None, False
    return context.policy(model), Account(model), True


def reward_of(solution: Node) -> float:
    """What a solution is worth; one that ended without an answer (too long, too many steps) nothing."""
    return solution.reward or 0.0


def fewest_more(right: float, count: int, width: float, most: int) -> int:
    """How many more samples could make the interval of a share no wider than ``width``, if all agreed with most;
    ``most`` where so many could not.

    Args:
        right: the sum of the samples' rewards.
        count: how many samples there are.
        width: above 0.
        most: how many more there may be.

    Raises:
        GradatimError: if a reward is not between 0 and 1.
    """
    agreeing = float(2 * right >= count > 0)
    for more in range(most):
        total = count + more
        low, high = wilson_interval((right + agreeing * more) / total if total else 0.0, total)
        if high - low <= width:
            return more
    return most


def check_rollouts(rollouts: int, best_of: int) -> None:
    """See that the best of so many solutions can be told of.

    Raises:
        GradatimError: if there are too few of them.
    """
    if best_of > rollouts:
        raise GradatimError(f"the best of {best_of} cannot be told of {rollouts} rollouts; raise rollouts")


def _written_below(node: Node, source: str) -> list[Node]:
    """The whole solutions at or below ``node`` that ``source`` wrote from there on, each as often as it was sampled."""
    solutions = []
    waiting = [node]
    while waiting:
        each = waiting.pop()
        waiting.extend(child for child in reversed(each.children) if child.step.source == source)
        if each.is_leaf and not each.open and each.step.end is not EndReason.BUDGET:
            solutions.extend([each] * each.multiplicity)
    return solutions


def _judged(solutions: Sequence[Node]) -> list[Node]:
    """Those that somebody can judge."""
    return [each for each in solutions if each.reward is not None or not each.finished]


def _cut_by_budget(leaf: Node) -> bool:
    return leaf.step.end is EndReason.BUDGET or (leaf.open and leaf.tree.budget.spent)
