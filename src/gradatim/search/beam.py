"""Step beam search: keep the best partial solutions by score, and continue only those."""

from __future__ import annotations

from typing import ClassVar

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf
from gradatim.search.vg_search import ByRound, VgSearch
from gradatim.tree import Tree


@part
class Beam(Search):
    """Step beam search guided by a scorer (Snell et al., 2024, arXiv:2408.03314).

    Every round proposes ``width * branch`` steps, spread evenly over the frontier (the first round: all below the
    root), scores all that are not cut off and keeps the ``width`` best open ones; identical steps take one place.
    Finished solutions leave the frontier and stay candidates. The search ends when nothing is open or the budget is
    spent. It is the case of :class:`gradatim.search.vg_search.VgSearch` that verifies every step.

    Both numbers may be given round by round, the last one for all that follow: where early scores say little,
    ``width=(4, 1), branch=(1, 16, 1)`` follows four first steps, prunes among the sixteen second ones, and finishes the
    best.
    """

    title: ClassVar[str] = "beam search"
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("width",)

    width: ByRound = 4
    """Partial solutions that are kept in each round: a number, or one for each round."""
    branch: ByRound = 4
    """Steps that are proposed for each of them: a number, or one for each round."""

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
        search = VgSearch(aggregate=self.aggregate, width=self.width, branch=self.branch, granularity=1)
        await search(tree, policy, guide, sampling=sampling, answer=answer)
