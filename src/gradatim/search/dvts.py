"""Diverse verifier tree search: many narrow beams that do not compete, in the place of a wide one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.chains import run_chains
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.ranking import best
from gradatim.tree import Node, Tree


@part
class Dvts(Search):
    """Diverse verifier tree search: independent beams of width 1 (Beeching et al., 2024, Scaling test-time compute).

    A wide beam soon holds siblings alone, since one good step's children push all others out. Here N = ``subtrees *
    branch`` steps a round belong to N/M subtrees of M = ``branch`` proposals, and each goes on from the best of its
    own, so that nothing pushes out what another subtree found. A subtree ends when its best proposal ends the solution.

    The method is of a blog post of Hugging Face (*Scaling test-time compute with open models*), not of a paper.
    """

    title: ClassVar[str] = "DVTS"
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("subtrees",)

    subtrees: PositiveInt = 4
    """Beams of width 1 that do not compete."""
    branch: PositiveInt = 4
    """Steps that each of them proposes in a round."""

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

        def greedy(proposals: Sequence[Node], number: int, chain: int) -> Node:
            return best(proposals, 1, guide.name, self.aggregate)[0]

        await run_chains(
            tree, policy, guide, greedy,
            chains=self.subtrees, branch=self.branch, sampling=sampling, aggregate=self.aggregate,
        )  # fmt: skip
        if answer is not None:
            await give_answers(tree, answer)
