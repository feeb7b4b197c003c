"""Growing trees to learn from: every kind of continuation is tried, not only the promising ones."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf
from gradatim.search.decisions import decide
from gradatim.tree import Tree


@part
class Grow(Search):
    """Growing level by level, with as many steps below every open node as its depth says.

    Identical steps are one node, which is expanded once and remembers how often it was drawn. Grade the tree and call
    :func:`gradatim.values.backup.back_up_values` to have the value of every node from all that was sampled; or give a
    :class:`gradatim.scorers.rollouts.RolloutScorer`, which brings every node to the same number of rollouts. A scorer
    scores each level before the next one is grown.
    """

    title: ClassVar[str] = "growing"
    grows_with: ClassVar[tuple[str, ...]] = ("rollouts", "branching")

    branching: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (8, 4, 4)
    """Steps that are drawn below a node, for each depth from the root's."""
    rollouts: NonNegativeInt = 1
    """Solutions that are completed below each node left open at the last level; with 0 such a node has no value."""
    skip_decided: bool = False
    """Expand no step whose score is 0 or 1: one whose rollouts are all right or all wrong has no contrast to teach."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        frontier = [tree.root]
        for count in self.branching:
            if not frontier or tree.budget.spent:
                return
            children = list(dict.fromkeys(await policy.extend(frontier, count, sampling=sampling)))
            if scorer is not None:
                await scorer.score(children)
            frontier = [child for child in children if child.open]
            if self.skip_decided:
                name = self._guide(scorer).name
                decided = [child for child in frontier if not 0.0 < child.scores.get(name, 0.0) < 1.0]
                decide(decided, "dropped", f"{name} is 0 or 1, or not known: it has no contrast to teach")
                frontier = [child for child in frontier if child not in decided]
        if frontier:
            await policy.extend(frontier, self.rollouts, steps=None, sampling=sampling)
