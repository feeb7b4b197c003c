"""Values from what was grown: the expected reward of going on as the policy does."""

from __future__ import annotations

from typing import Literal

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.scorers.base import Context
from gradatim.tree import EndReason, Tree
from gradatim.values.base import VALUE, Values


@part
class Backup(Values):
    """The share of right solutions among those grown below a step, each child by how often it was drawn."""

    async def __call__(self, tree: Tree, context: Context) -> None:
        back_up_values(tree, self.key)


def back_up_values(
    tree: Tree, name: str = VALUE, *, following: Literal["mean", "max"] = "mean", discount: float = 1.0
) -> None:
    """Write to every node the expected reward of continuing from it as the policy does, estimated from the tree.

    A node's value is the mean of its children's, each weighted by its multiplicity: children are draws from the
    policy, and a step drawn twice counts twice however few times it was then expanded. (In a plain mean of the leaves a
    much expanded child would weigh more.) ``node.counts[name]`` is the number of solutions below. Solutions that ended
    without an answer are worth 0; open leaves and those that the budget cut off say nothing, and a node with nothing
    else below it gets no value. A reward that a step has before the solution's end is added to what follows.

    Args:
        tree: a graded tree.
        name: of the values.
        following: what is worth having of the children: their ``"mean"``, or the ``"max"``, as if the best one that was
            found were taken.
        discount: what a reward one step later is worth.

    Raises:
        GradatimError: if a finished solution was not graded.
    """
    for node in reversed(tree.nodes):
        node.scores.pop(name, None)
        if node.children:
            known = [child for child in node.children if name in child.scores]
            weight = sum(child.multiplicity for child in known)
            if weight:
                mean = sum(child.multiplicity * child.scores[name] for child in known) / weight
                later = mean if following == "mean" else max(child.scores[name] for child in known)
                node.scores[name] = (node.reward or 0.0) + discount * later
                node.counts[name] = sum(child.counts[name] for child in known)
        elif not node.open and node.step.end is not EndReason.BUDGET:
            if node.finished and node.reward is None:
                raise GradatimError(
                    f"a solution of problem {tree.problem.id!r} has no reward; grade the tree before backing up values"
                )
            node.scores[name] = node.reward or 0.0
            node.counts[name] = node.multiplicity
