"""Growing trees to learn from: every kind of continuation is tried, not only the promising ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gradatim.errors import GradatimError
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.tree import EndReason, Node, Tree


async def grow(
    tree: Tree,
    policy: Policy,
    scorer: Scorer | None = None,
    *,
    branching: Sequence[int] = (8, 4, 4),
    rollouts: int = 0,
    worth_expanding: Callable[[Node], bool] | None = None,
    sampling: Sampling | None = None,
) -> Tree:
    """Grow a tree level by level: ``branching[depth]`` steps are drawn below every open node of that depth.

    Identical steps are one node, which is expanded once and remembers how often it was drawn. After the last level,
    ``rollouts`` solutions are completed below every node that is still open. Grade the tree and call
    :func:`back_up_values` to have the value of every node from all that was sampled; or give a
    :class:`gradatim.scorers.rollouts.RolloutScorer`, which brings every node to the same number of rollouts.

    Args:
        tree: the problem's tree; its budget ends the growth.
        policy: proposes steps.
        scorer: scores each level before the next one is grown; without one, nothing is scored.
        branching: steps drawn below a node, for each depth from the root's.
        rollouts: solutions completed below each node left open at the last level.
        worth_expanding: called with each open node below the root after it was scored; ``False`` leaves it as it is.
            (A node whose solutions are all right or all wrong has no contrast to teach.)
        sampling: how steps are sampled; the policy's own way by default.

    Raises:
        GradatimError: if a branching factor is below 1 or ``rollouts`` below 0.
    """
    if not all(count >= 1 for count in branching) or rollouts < 0:
        raise GradatimError(
            f"growing needs branching factors of at least 1 and no negative rollouts, got {branching} and {rollouts}"
        )
    frontier = [tree.root]
    for count in branching:
        if not frontier or tree.budget.spent:
            return tree
        children = await policy.expand(frontier, count, sampling)
        if scorer is not None:
            await scorer.score(children)
        frontier = [child for child in children if child.open and (worth_expanding is None or worth_expanding(child))]
    if rollouts and frontier:
        await policy.rollout(frontier, rollouts, sampling)
    return tree


def back_up_values(tree: Tree, name: str = "value") -> None:
    """Write to every node the expected reward of continuing from it as the policy does, estimated from the tree.

    A node's value is the mean of its children's, each weighted by its multiplicity: children are draws from the
    policy, and a step drawn twice counts twice however few times it was then expanded. (:meth:`Tree.backup` is the
    plain mean of the leaves instead, in which a much expanded child weighs more.) ``node.counts[name]`` is the number
    of solutions below. Solutions that ended without an answer are worth 0; open leaves and those that the budget cut
    off say nothing, and a node with nothing else below it gets no value.

    Raises:
        GradatimError: if a finished solution was not graded.
    """
    for node in reversed(tree.nodes):
        node.scores.pop(name, None)
        if node.children:
            known = [child for child in node.children if name in child.scores]
            weight = sum(child.multiplicity for child in known)
            if weight:
                node.scores[name] = sum(child.multiplicity * child.scores[name] for child in known) / weight
                node.counts[name] = sum(child.counts[name] for child in known)
        elif not node.open and node.step.end is not EndReason.BUDGET:
            if node.finished and node.reward is None:
                raise GradatimError(
                    f"a solution of problem {tree.problem.id!r} has no reward; grade the tree before backing up values"
                )
            node.scores[name] = node.reward or 0.0
            node.counts[name] = node.multiplicity
