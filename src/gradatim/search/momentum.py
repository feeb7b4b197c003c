"""Momentum uncertainty: spend draws and scores only at steps that are more uncertain than those before them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gradatim.budget import Account
from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.draws import draws_below
from gradatim.scorers.base import Scorer
from gradatim.scorers.confidence import mean, recorded
from gradatim.search.around import InnerSearch, PolicyAround, ScorerAround, SearchAround, decide_also
from gradatim.search.beam import Beam
from gradatim.search.choosing import AnswerOf
from gradatim.tree import Node, Tree


@part
class Momentum(SearchAround):
    """Branch only at steps whose uncertainty stands out from its momentum (Yan et al., *MUR*, 2025, arXiv:2507.14958).

    Wherever the inner search asks for several steps below a node, one is drawn. Its uncertainty ``m`` is the mean
    negative log-probability of its tokens, and the momentum ``M`` is the running average of those of the steps before
    it. The other draws follow only where ``exp(m) > exp(M) / gamma``. The first step has nothing before it and is
    drawn once; draws of several steps at a time are left as they are. (The paper draws all candidates anew; here the
    one that was looked at is among them.)
    """

    title: ClassVar[str] = "momentum-gated search"

    search: InnerSearch = Beam(width=1, branch=4)
    """The search whose draws and scores are spent."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the running average stays with each step; it begins at 0, which is certainty."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.9
    """A step stands out if its perplexity is above that of the momentum divided by this; lower spends less."""
    verify: Literal["compared", "all"] = "compared"
    """Which steps are scored: `compared` leaves out an open step that stands alone in its round; `all` is for searches
    that need the value of every step, such as Monte-Carlo tree search, and for aggregates other than `last`."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        if scorer is not None and self.verify == "compared":
            scorer = _ComparedScorer(scorer)
        await self.search(tree, _GatedPolicy(policy, self), scorer, sampling=sampling, answer=answer)

    def stands_out(self, node: Node) -> bool:
        """Whether a step is more uncertain than those before it let expect.

        Raises:
            GradatimError: if the log-probabilities of a step are unknown.
        """
        uncertainties = [-mean(recorded(each.step)) for each in node.path()[1:]]
        average = 0.0
        for uncertainty in uncertainties[:-1]:
            average = self.momentum * average + (1 - self.momentum) * uncertainty
        return len(uncertainties) > 1 and uncertainties[-1] > average - math.log(self.gamma)


class _GatedPolicy(PolicyAround):
    """Draws one step, and the others only where it stands out."""

    def __init__(self, policy: Policy, gate: Momentum) -> None:
        super().__init__(policy)
        self.gate = gate

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        steps: int | None = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
    ) -> list[Node]:
        greedy = (sampling or self.sampling).temperature == 0  # all draws are one, and cost as one
        if steps != 1 or greedy:
            return await super().extend(nodes, n, steps=steps, sampling=sampling, account=account)
        counts: Counter[Node] = Counter()
        for node, count in draws_below(nodes, n, steps):
            counts[node] += count
        drawn: dict[Node, list[Node]] = {node: [] for node in counts}
        first = await super().extend(list(counts), 1, sampling=sampling, account=account)
        for child in first:
            drawn.setdefault(_parent(child), []).append(child)
        elsewhere = (child for child in first if _parent(child) not in counts)  # where a pool drew instead
        looked_at = {node: drawn[node] or list(islice(elsewhere, 1)) for node in counts}
        more = [count - 1 if any(map(self.gate.stands_out, looked_at[node])) else 0 for node, count in counts.items()]
        for node, further in zip(counts, more, strict=True):
            if counts[node] > 1:
                said = "a step below it stands out" if further else "no step below it stands out"
                decide_also(node, "expanded", f"{said} from the momentum of uncertainty: {1 + further} drawn")
        if any(more):
            for child in await super().extend(list(counts), more, sampling=sampling, account=account):
                drawn.setdefault(_parent(child), []).append(child)
        return [child for children in drawn.values() for child in children]


class _ComparedScorer(ScorerAround):
    """Scores steps that are compared with others, and solutions; a lone open step has nothing to be compared with."""

    async def score(self, nodes: Sequence[Node]) -> None:
        distinct = list(dict.fromkeys(nodes))
        if len(distinct) > 1 or not all(node.open for node in distinct):
            await super().score(distinct)


def _parent(node: Node) -> Node:
    assert node.parent is not None, "what was drawn lies below a node"
    return node.parent
