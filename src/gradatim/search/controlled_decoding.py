"""Controlled decoding: the policy's own choice of the next block, tilted towards those of a high value."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.chains import run_chains
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.ranking import path_score, softmax_weights
from gradatim.tree import Node, Tree


@part
class ControlledDecoding(Search):
    """Controlled decoding, block by block, by a value of prefixes (Mudgal et al., 2023, arXiv:2310.17022).

    In each round the policy proposes ``branch`` blocks, and a value of the prefix (the scorer) chooses where to go on.
    At temperature 0 that is the block of the highest value, as the paper's blockwise decoding does: best-of-``branch``
    for each block. Otherwise a block is drawn with a probability proportional to ``exp(value / temperature)`` times how
    often it was proposed: with many proposals, the policy tilted by the value, which is what the paper derives for
    single tokens. What a block is, the boundary of steps says: one of a number of tokens gives the paper's blocks.

    A value that was fitted on the policy's own solutions says little of prefixes that only guidance reaches; so it may
    be fitted again on what it guided (the recipe ``controlled-decoding``).
    """

    title: ClassVar[str] = "controlled decoding"
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("chains",)

    branch: PositiveInt = 4
    """Blocks that are proposed in each round."""
    steps: PositiveInt = 1
    """Steps that make a block."""
    temperature: NonNegativeFloat = 0.0
    """Of the choice among blocks: 0 takes the best, more stays nearer to the policy."""
    chains: PositiveInt = 1
    """Solutions that are decoded side by side."""

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

        def tilted(proposals: Sequence[Node], number: int, chain: int) -> Node:
            scores = [path_score(block, guide.name, self.aggregate) for block in proposals]
            generator = random.Random(f"{tree.seed} {tree.problem.id} controlled decoding {number} {chain}")
            return generator.choices(proposals, softmax_weights(scores, self.temperature))[0]

        await run_chains(
            tree, policy, guide, tilted,
            chains=self.chains, branch=self.branch, steps=self.steps, sampling=sampling, aggregate=self.aggregate,
        )  # fmt: skip
        if answer is not None:
            await give_answers(tree, answer)
