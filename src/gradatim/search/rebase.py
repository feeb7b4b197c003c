"""Reward-balanced search: steps are shared among the open nodes by their scores, and none is pruned outright."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from pydantic import PositiveFloat, PositiveInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, ChoiceRule, give_answers
from gradatim.search.decisions import decide
from gradatim.search.proposals import propose
from gradatim.search.ranking import path_score, softmax_weights
from gradatim.tree import Tree


@part
class Rebase(Search):
    """REBASE, reward-balanced search: expansions in proportion to softmaxed scores (Wu et al., 2024, arXiv:2408.00724).

    The first round draws ``width`` steps. In each round what ended a solution is taken off the width, and the rest is
    shared among the open steps in proportion to ``exp(score / temperature)``; so about ``width`` solutions come of it,
    all candidates of a vote weighted by score.

    A step that was drawn m times counts m times, as its m copies do in the paper. The paper rounds each share by
    itself, so that they need not add up; here shares are rounded up from the best step on, each of what is left, as is
    usual in code for the method, and add up to the width exactly.
    """

    title: ClassVar[str] = "REBASE"
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("width",)

    choose_by: ChoiceRule | None = "weighted_majority"
    """How the answer is chosen among the finished solutions: by `score`, by `majority`, by `weighted_majority` as in
    the paper, or by `best_of_majority`; `null` is by score."""
    width: PositiveInt = 16
    """Solutions that are aimed at: the steps of a round, and of those before it that ended."""
    temperature: PositiveFloat = 0.1
    """The paper's balance temperature: the lower, the more of the width goes to the best steps."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        guide = self._guide(scorer)
        frontier, shares, width = [tree.root], [self.width], self.width
        while frontier and not tree.budget.spent:
            drawn = Counter(await propose(frontier, shares, policy, guide, sampling=sampling, aggregate=self.aggregate))
            width -= sum(count for end, count in drawn.items() if not end.open)
            candidates = [end for end in drawn if end.open]
            scores = [path_score(end, guide.name, self.aggregate) for end in candidates]
            weights = softmax_weights(scores, self.temperature, [drawn[end] for end in candidates])
            shared = dict(zip(candidates, balanced(weights, width), strict=True))
            for end, share in shared.items():
                decide([end], "expanded" if share else "pruned", f"{share} of {width} expansions by {guide.name}")
            frontier = [end for end, share in shared.items() if share]
            shares = [shared[end] for end in frontier]
        if answer is not None:
            await give_answers(tree, answer)


def balanced(weights: Sequence[float], width: int) -> list[int]:
    """``width`` in whole shares in proportion to ``weights``: from the largest on, each is rounded up of what is left.

    Shares add up to ``width``; equal weights are served in the given order.
    """
    shares = [0] * len(weights)
    order = sorted(range(len(weights)), key=lambda place: -weights[place])
    for number, place in enumerate(order):
        rest = math.fsum(weights[other] for other in order[number:])
        if rest > 0:
            shares[place] = math.ceil(width * weights[place] / rest - 1e-9)  # a whole share stays whole
            width -= shares[place]
    return shares
