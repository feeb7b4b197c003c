"""Step beam search: keep the best partial solutions by score, and continue only those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.decisions import keep_and_prune
from gradatim.search.ranking import best
from gradatim.tree import Tree

ByRound = PositiveInt | Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


@part
class Beam(Search):
    """Step beam search guided by a scorer (Snell et al., 2024, arXiv:2408.03314).

    Every round proposes ``width * branch`` steps, spread evenly over the frontier (the first round: all below the
    root), scores all that are not cut off and keeps the ``width`` best open ones; identical steps take one place.
    Finished solutions leave the frontier and stay candidates. The search ends when nothing is open or the budget is
    spent.

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
        frontier = [tree.root]
        depth = 0
        while frontier and not tree.budget.spent:
            keep, each = _in_round(self.width, depth), _in_round(self.branch, depth)
            drawn = await policy.extend(frontier, max(1, keep * each // len(frontier)), sampling=sampling)
            children = list(dict.fromkeys(drawn))
            await guide.score([child for child in children if not child.step.end.cuts_off])
            open_children = [child for child in children if child.open]
            frontier = best(open_children, keep, guide.name, self.aggregate)
            keep_and_prune(open_children, frontier, guide.name)
            depth += 1
        if answer is not None:
            await give_answers(tree, answer)


def _in_round(value: int | Sequence[int], depth: int) -> int:
    return value if isinstance(value, int) else value[min(depth, len(value) - 1)]
