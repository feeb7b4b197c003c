"""Independent sampling: whole solutions from the root, the baseline of every search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.proposals import judge_solutions
from gradatim.tree import Node, Tree


@part
class IndependentSampling(Search):
    """Independent sampling of whole solutions, each scored as soon as it is there.

    One of them is chosen by :func:`gradatim.search.best_of_n`, :func:`gradatim.search.majority` or
    :func:`gradatim.search.weighted_majority`.
    """

    title: ClassVar[str] = "sampling"
    grows_with: ClassVar[tuple[str, ...]] = ("n",)

    n: PositiveInt | None = 16
    """Solutions; `null` samples until the budget is spent."""
    wave: PositiveInt | None = None
    """Solutions that are sampled at a time; `null` for all `n`, or for 8 where a budget ends the sampling. A budget
    that ends within a wave cuts off one of its solutions and leaves out those after it."""
    score: Literal["solutions", "steps"] = "solutions"
    """Score the last step of each solution (and the others where `aggregate` needs them), or every step."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        if self.n is None and tree.budget.limit is None:
            raise GradatimError("sampling has no end: set the number of solutions (n) or a token budget")
        wave = self.wave or self.n or 8
        done = 0
        while not tree.budget.spent and (self.n is None or done < self.n):
            count = wave if self.n is None else min(wave, self.n - done)
            leaves = await policy.extend([tree.root], count, steps=None, sampling=sampling)
            if not leaves:  # what is left of the budget does not pay for the prompt
                break
            if scorer is not None:
                await self._judge(leaves, scorer)
            done += count
        if answer is not None:
            await give_answers(tree, answer)

    async def _judge(self, leaves: Sequence[Node], scorer: Scorer) -> None:
        if self.score == "solutions":
            await judge_solutions(leaves, scorer, self.aggregate)
        else:
            steps = dict.fromkeys(node for leaf in leaves if leaf.finished for node in leaf.path()[1:])
            await scorer.score(list(steps))
