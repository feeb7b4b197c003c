"""DeepConf online: stop solutions of which the policy is less sure than of the best of a few that it wrote before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.scorers.confidence import lowest_window, path_log_probabilities
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, by_answer, give_answers, weighted_majority
from gradatim.search.decisions import decide
from gradatim.search.proposals import judge_solutions
from gradatim.tree import Node, Tree

KEY = "deepconf"
"""Of the confidences of solutions that vote, in ``node.scores``."""
Share = Annotated[float, Field(gt=0, le=1)]


@part
class DeepConf(Search):
    """Vote by confidence, and stop solutions of low confidence early (Fu et al., *DeepConf*, 2025, arXiv:2508.15260).

    The confidence of a solution is the lowest geometric mean of the probabilities of ``window`` consecutive tokens, as
    they were recorded in writing, so it costs nothing. (The paper takes the mean over the likeliest tokens at each
    place; here it is the token that was written.) Warm-up solutions are written whole; the confidence that the best
    ``keep`` of them reach is the threshold. What lies below it is dropped: warm-up solutions at once, later ones at the
    end of the step in which a window falls below. The others vote, each weighted by its confidence, and the search ends
    when the winning answer has ``consensus`` of all weight, after ``n`` solutions, or when the budget is spent.
    """

    title: ClassVar[str] = "DeepConf"
    grows_with: ClassVar[tuple[str, ...]] = ("n",)

    n: PositiveInt = 32
    """Solutions in all, those of the warm-up and those that are stopped included."""
    warmup: PositiveInt = 8
    """Solutions of the warm-up; the paper has 16."""
    keep: Share = 0.9
    """Share of the warm-up solutions that lies above the threshold: 0.1 is the paper's low, 0.9 its high setting."""
    window: PositiveInt = 16
    """Tokens of a group; the paper has 2,048, for solutions of tens of thousands of tokens. A solution that is shorter
    is judged as a whole, at its end."""
    consensus: Share = 0.95
    """Share of the weight of all votes with which an answer ends the search."""
    wave: PositiveInt = 4
    """Solutions that are written at a time after the warm-up."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        if answer is None:
            raise GradatimError(f"{self.title} votes, so it needs to know what solutions answer; give it the answers")
        warmup = min(self.warmup, self.n)
        leaves = await policy.extend([tree.root], warmup, steps=None, sampling=sampling)
        if not leaves:  # the budget does not pay for the prompt
            return
        threshold = percentile([self.confidence(leaf) for leaf in leaves], 1 - self.keep)
        done = warmup
        while True:
            for leaf in dict.fromkeys(leaves):
                self._admit(leaf, threshold)
            await self._vote(tree, scorer, answer)
            if done >= self.n or tree.budget.spent or agreement(tree) >= self.consensus:
                break
            count = min(self.wave, self.n - done)
            leaves = await self._write(tree, policy, count, threshold, sampling)
            done += count

    async def _write(
        self, tree: Tree, policy: Policy, count: int, threshold: float, sampling: Sampling | None
    ) -> list[Node]:
        """Up to ``count`` further solutions, step by step; those that fall below the threshold are stopped there."""
        ended: list[Node] = []
        running = Counter({tree.root: count})
        while running and not tree.budget.spent:
            drawn = await policy.extend(list(running), list(running.values()), sampling=sampling)
            running = Counter(node for node in drawn if node.open and self._admit(node, threshold))
            ended += [node for node in drawn if not node.open]
        return ended

    def confidence(self, node: Node) -> float:
        """From 0 to 1: the lowest geometric mean of the probabilities of a window's tokens on the path to ``node``.

        Raises:
            GradatimError: if the log-probabilities of a step are unknown.
        """
        return math.exp(lowest_window(path_log_probabilities(node), self.window))

    def _admit(self, node: Node, threshold: float) -> bool:
        """Whether a step may go on, or a solution vote; if not, it is dropped."""
        if node.open and len(path_log_probabilities(node)) < self.window:
            return True
        confidence = self.confidence(node)
        if confidence < threshold:
            decide([node], "dropped", f"its confidence of {confidence:.3f} is below {threshold:.3f}")
        elif node.finished:
            node.scores[KEY] = confidence
        return confidence >= threshold

    async def _vote(self, tree: Tree, scorer: Scorer | None, answer: AnswerOf) -> None:
        await give_answers(tree, answer)
        if scorer is not None and self.choose_by not in (None, "majority"):
            voting = [leaf for leaf in tree.solutions() if KEY in leaf.scores]
            await judge_solutions(voting, scorer, self.aggregate)

    def choose(self, tree: Tree, scorer: str | None) -> Node | None:
        """The answer of the most confidence, or what ``choose_by`` says."""
        return weighted_majority(tree, KEY) if self.choose_by is None else Search.choose(self, tree, scorer)


def agreement(tree: Tree) -> float:
    """The share of the winning answer in the confidence of all votes; 0 without a vote."""
    weights = [math.fsum(leaf.scores.get(KEY, 0.0) * leaf.multiplicity for leaf in group) for group in by_answer(tree)]
    return max(weights, default=0.0) / (math.fsum(weights) or 1.0)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of at least one value lies, interpolated between neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = ordered[math.floor(place)]
    return low + (ordered[math.ceil(place)] - low) * (place - math.floor(place))
