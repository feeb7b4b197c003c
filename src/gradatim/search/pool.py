"""A pool of old prefixes: what is extended next is drawn from all that was ever scored, not from the frontier alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import ClassVar

from pydantic import PositiveFloat, PositiveInt

from gradatim.budget import Account
from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.draws import draws_below
from gradatim.scorers.aggregation import Aggregate
from gradatim.scorers.base import Scorer
from gradatim.search.around import InnerSearch, PolicyAround, ScorerAround, SearchAround, decide_also
from gradatim.search.beam import Beam
from gradatim.search.choosing import AnswerOf
from gradatim.search.ranking import path_score
from gradatim.tree import Node, Tree


@part
class Pool(SearchAround):
    """Backtracking by a pool of all prefixes that were scored (Tran et al., 2026, arXiv:2605.25143).

    Whatever the inner search asks to extend, as many different prefixes are drawn instead from all open ones that were
    ever scored, with probabilities in proportion to ``exp(score / temperature)``: a prefix that was pruned by a noisy
    score comes back. A prefix may be drawn ``uses`` times; after ``rounds`` the inner search extends what it asks for
    and so comes to its end. It suits searches that go on from whatever steps they are given (beams, particles,
    sampling), not those that keep books of what they asked for (Monte-Carlo tree search).

    (The paper has two ways to choose from the pool, the best of random subpools and resampling by powers of the
    scores; this is a plain softmax.)
    """

    title: ClassVar[str] = "pool search"

    search: InnerSearch = Beam()
    """The search whose prefixes are drawn from the pool."""
    temperature: PositiveFloat = 0.1
    """Of the choice: towards 0 the best scores are taken."""
    uses: PositiveInt = 2
    """How often a prefix may be drawn."""
    rounds: PositiveInt = 16
    """How many times prefixes are drawn from the pool."""

    @property
    def is_guided(self) -> bool:  # type: ignore[override]
        return True

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        drawing = _DrawingPolicy(policy, self)
        guide = _KeepingScorer(self._guide(scorer), drawing.pool, self.search.aggregate)
        await self.search(tree, drawing, guide, sampling=sampling, answer=answer)


class _Prefixes:
    """The prefixes that may be extended, by their scores, and how often each was drawn."""

    def __init__(self) -> None:
        self.scores: dict[Node, float] = {}
        self.drawn: dict[Node, int] = {}

    def draw(self, count: int, temperature: float, uses: int, chance: random.Random) -> list[Node]:
        """Up to ``count`` different prefixes that are not used up, by the Gumbel trick: one after the other, without
        replacement, in proportion to ``exp(score / temperature)``."""
        left = [node for node in self.scores if node.open and self.drawn.get(node, 0) < uses]
        noisy = {node: self.scores[node] / temperature - math.log(chance.expovariate(1.0)) for node in left}
        taken = sorted(left, key=noisy.__getitem__, reverse=True)[:count]
        for place, node in enumerate(taken, 1):
            self.drawn[node] = self.drawn.get(node, 0) + 1
            decide_also(node, "expanded", f"draw {place} from a pool of {len(left)}")
        return taken


class _DrawingPolicy(PolicyAround):
    """Extends prefixes of the pool in the place of those that it is asked for."""

    def __init__(self, policy: Policy, options: Pool) -> None:
        super().__init__(policy)
        self.options = options
        self.pool = _Prefixes()
        self.rounds = 0

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        steps: int | None = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
    ) -> list[Node]:
        asked = draws_below(nodes, n, steps)
        if asked and self.pool.scores and self.rounds < self.options.rounds:
            asked = self._instead(asked)
        below, counts = [node for node, _ in asked], [count for _, count in asked]
        return await super().extend(below, counts, steps=steps, sampling=sampling, account=account)

    def _instead(self, asked: list[tuple[Node, int]]) -> list[tuple[Node, int]]:
        """As many prefixes of the pool, with the same numbers of draws; what is not in the pool (since the budget left
        it without a score, or it is the prompt) stands for prefixes that are missing."""
        tree = asked[0][0].tree
        self.rounds += 1
        chance = random.Random(f"{tree.seed} {tree.problem.id} pool {self.rounds}")
        taken = self.pool.draw(len(asked), self.options.temperature, self.options.uses, chance)
        others = [node for node, _ in asked if node not in self.pool.scores]
        return list(zip([*taken, *others], [count for _, count in asked], strict=False))


class _KeepingScorer(ScorerAround):
    """Keeps every open step that is scored in the pool."""

    def __init__(self, scorer: Scorer, pool: _Prefixes, aggregate: Aggregate) -> None:
        super().__init__(scorer)
        self.pool = pool
        self.aggregate = aggregate

    async def score(self, nodes: Sequence[Node]) -> None:
        await super().score(nodes)
        for node in nodes:
            score = path_score(node, self.name, self.aggregate) if node.open else None
            if score is not None:
                self.pool.scores[node] = score
