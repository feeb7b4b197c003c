"""Phi-decoding: each step is judged by a simulated future, with no scorer."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.scorers.confidence import future_likelihood, likelihood_of
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.decisions import SIMULATED, decide
from gradatim.search.proposals import by_start, judge_solutions
from gradatim.search.ranking import softmax_weights
from gradatim.tree import Node, Tree

_SIMILAR = 0.5  # of all words of two futures, the share that both have, from which on they are one cluster


@part
class PhiDecoding(Search):
    """Phi-decoding: foresight by the policy itself, in the place of a scorer (Xu et al., 2025, arXiv:2503.13288).

    In each round ``width * branch`` candidates are proposed. *In-width pruning* leaves out those whose mean
    log-probability a token lies ``prune_below`` standard deviations below the mean. From each of the others one future
    is simulated. Its *advantage* is how much likelier (in mean log-probability a token) it is than the future that was
    simulated one step before; its *alignment* is the share of the futures in its cluster. ``width`` candidates are
    drawn by the mean of the softmaxes of both. *In-depth pruning* ends the search where a cluster has a share of
    ``agree`` of the futures.

    Futures of the same final answer are one cluster, and those without an answer by the words that they share; the
    paper clusters their texts by k-means. Simulated futures are solutions like others: they stay in the tree, noted as
    ``simulated``, and may be chosen (by vote where there is no scorer; the paper goes on from one of the last
    candidates). Candidates that end a solution are their own future.
    """

    title: ClassVar[str] = "phi-decoding"
    grows_with: ClassVar[tuple[str, ...]] = ("width", "branch")

    width: PositiveInt = 4
    """Partial solutions that are continued in each round."""
    branch: PositiveInt = 4
    """Steps that are proposed for each of them."""
    foresight: PositiveInt | None = None
    """Steps that a future is simulated for; `null` goes on to the end of the solution."""
    temperature: PositiveFloat = 0.1
    """Of the softmax of advantages; that of alignments has the temperature 1."""
    prune_below: NonNegativeFloat | None = 1.0
    """In-width pruning, in standard deviations below the mean; `null` simulates a future of every candidate."""
    agree: Annotated[float, Field(gt=0, le=1)] | None = 0.7
    """In-depth pruning: the share of one cluster at which the search ends; `null` goes on to the last step."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        frontier, likelihood, number = [tree.root], {tree.root: 0.0}, 0
        while frontier and not tree.budget.spent:
            draws = max(1, self.width * self.branch // len(frontier))
            proposed = list(dict.fromkeys(await policy.extend(frontier, draws, sampling=sampling)))
            candidates = self._pruned_in_width([node for node in proposed if not node.step.end.cuts_off])
            futures = await self._foresee(candidates, policy, sampling)
            if answer is not None:
                await give_answers(tree, answer)
            clusters = clustered(futures)
            generator = random.Random(f"{tree.seed} {tree.problem.id} phi-decoding {number}")
            chosen = self._chosen(futures, clusters, likelihood, generator)
            frontier = [node for node in chosen if node.open]
            likelihood = {node: future_likelihood(node, futures[node]) for node in frontier}
            if futures and self.agree is not None and max(map(len, clusters)) >= self.agree * len(futures):
                decide(frontier, "dropped", f"{max(map(len, clusters))} of {len(futures)} futures agree")
                await policy.extend([futures[node] for node in frontier], 1, steps=None, sampling=sampling)
                break
            number += 1
        if answer is not None:
            await give_answers(tree, answer)
        if scorer is not None:
            await judge_solutions(tree.solutions(), scorer, self.aggregate)

    def _pruned_in_width(self, candidates: Sequence[Node]) -> list[Node]:
        """Those that are not much less likely than the others; at least ``width``, as far as there are so many."""
        likely = {node: likelihood_of([node]) for node in candidates}
        if self.prune_below is None or len(likely) <= self.width:
            return list(candidates)
        least = statistics.fmean(likely.values()) - self.prune_below * statistics.pstdev(likely.values())
        ranked = sorted(candidates, key=lambda node: -likely[node])
        kept = {node for place, node in enumerate(ranked) if place < self.width or likely[node] >= least}
        decide([node for node in candidates if node.open and node not in kept], "pruned", "unlikely: not simulated")
        return [node for node in candidates if node in kept]

    async def _foresee(self, candidates: Sequence[Node], policy: Policy, sampling: Sampling | None) -> dict[Node, Node]:
        """The end of a simulated future of each candidate, as far as the budget goes."""
        for node in candidates:
            node.notes.pop(SIMULATED, None)  # it may be a step of an earlier future
        ahead = [node for node in candidates if node.open]
        found = by_start(ahead, await policy.extend(ahead, 1, steps=self.foresight, sampling=sampling))
        futures = {node: found[node][0] if node.open else node for node in candidates if not node.open or found[node]}
        for node, end in futures.items():
            for step in end.path()[node.depth + 1 :]:
                step.notes[SIMULATED] = True
        decide([node for node in candidates if node not in futures], "dropped", "no future could be simulated")
        return futures

    def _chosen(
        self,
        futures: dict[Node, Node],
        clusters: Sequence[Sequence[Node]],
        likelihood: dict[Node, float],
        generator: random.Random,
    ) -> list[Node]:
        """Up to ``width`` different candidates, drawn by advantage and alignment."""
        share = {node: len(cluster) / len(futures) for cluster in clusters for node in cluster}
        before = [next((likelihood[each] for each in node.path()[::-1] if each in likelihood), 0.0) for node in futures]
        advantages = [future_likelihood(*each) - old for each, old in zip(futures.items(), before, strict=True)]
        by_advantage = softmax_weights(advantages, self.temperature)
        by_alignment = softmax_weights([share[node] for node in futures], 1.0)
        left = {node: (by_advantage[place] + by_alignment[place]) / 2 for place, node in enumerate(futures)}
        decide(left, "pruned", "not drawn by advantage and alignment")
        chosen: list[Node] = []
        while left and len(chosen) < self.width:
            chosen += generator.choices(list(left), list(left.values()))
            weight = left.pop(chosen[-1])
            decide(chosen[-1:], "expanded", f"drawn by advantage and alignment, with a weight of {weight:.2f}")
        return chosen


def clustered(futures: dict[Node, Node]) -> list[list[Node]]:
    """Candidates whose futures have the same answer; those without one by the words that their futures share."""
    by_answer: dict[str, list[Node]] = {}
    by_words: list[tuple[set[str], list[Node]]] = []
    for node, end in futures.items():
        if end.answer is not None:
            by_answer.setdefault(end.answer, []).append(node)
            continue
        words = set("".join(step.step.text for step in end.path()[node.depth + 1 :] or [node]).split())
        for others, cluster in by_words:
            if len(words & others) >= _SIMILAR * len(words | others):
                cluster.append(node)
                break
        else:
            by_words.append((words, [node]))
    return [*by_answer.values(), *(cluster for _, cluster in by_words)]
