"""Variable-granularity search: between beam search, which verifies every step, and best-of-n, which does the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.decisions import decide, keep_and_prune
from gradatim.search.proposals import in_round, judge
from gradatim.search.ranking import best, path_score
from gradatim.tree import Node, Tree

ByRound = PositiveInt | Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Granularity = PositiveInt | None | Annotated[tuple[PositiveInt | None, ...], Field(min_length=1)]


@part
class VgSearch(Search):
    """Variable-granularity search: verify every g steps (Chen et al., 2025, arXiv:2505.11730).

    It starts with ``width * branch`` candidates of g steps. In each round all are scored and the ``width`` best open
    ones kept; each goes on alone for g - 1 steps and then branches, so that ``width * branch`` last steps are scored
    next. With g = 1 this is beam search (:class:`gradatim.search.beam.Beam`), and with g = infinity (``null``) best of
    ``width * branch`` samples, node for node.

    The paper chooses g on validation problems, one for a model, a difficulty and a number of samples: the largest that
    is as accurate as g = 1 within a tolerance (CM-g), or the most accurate within a budget of compute (AM-g); it does
    not change g within a problem. Compare values of ``granularity`` to do so. ``widen_below`` is a rule of our own that
    needs no validation: where a round's scores hardly differ, verifying told nothing, and the next one is put off.
    """

    title: ClassVar[str] = "variable-granularity search"
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("width",)

    width: ByRound = 4
    """Partial solutions that are kept in each round: a number, or one for each round."""
    branch: ByRound = 4
    """Steps that are proposed for each of them: a number, or one for each round."""
    granularity: Granularity = 2
    """Steps between two verifications: a number, or one for each round; `null` goes on to the end of the solution."""
    widen_below: NonNegativeFloat | None = None
    """Double the steps to the next verification after a round whose scores all lie within this much of each other, and
    go back to `granularity` after any other; `null` never does."""

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
        frontier, number, stretch = [tree.root], 0, 1
        while frontier and not tree.budget.spent:
            keep, each = in_round(self.width, number), in_round(self.branch, number)
            steps = in_round(self.granularity, number)
            steps = None if steps is None else steps * stretch
            ends = await advance(frontier, keep * each, steps, policy, sampling)
            await judge(ends, frontier, guide, self.aggregate)
            candidates = [end for end in ends if end.open]
            frontier = best(candidates, keep, guide.name, self.aggregate)
            keep_and_prune(candidates, frontier, guide.name)
            stretch = 2 * stretch if self._is_calm(candidates, guide.name) else 1
            number += 1
        if answer is not None:
            await give_answers(tree, answer)

    def _is_calm(self, candidates: Sequence[Node], name: str) -> bool:
        """Whether the scores of a round differ by so little that they tell nothing."""
        found = [path_score(node, name, self.aggregate) for node in candidates]
        scores = [score for score in found if score is not None]
        return self.widen_below is not None and (not scores or max(scores) - min(scores) <= self.widen_below)


async def advance(
    frontier: Sequence[Node], draws: int, steps: int | None, policy: Policy, sampling: Sampling | None
) -> list[Node]:
    """Different ends of about ``draws`` draws, ``steps`` further on than a frontier.

    From the root each draw goes all the way. Below other nodes one goes to the step before the last, where the draws,
    spread evenly over the nodes, part; so what is not verified in between is written once and not for each draw.
    """
    ended: list[Node] = []
    if steps != 1 and not frontier[0].is_root:
        reached = dict.fromkeys(await policy.extend(frontier, 1, steps=steps and steps - 1, sampling=sampling))
        ended = [node for node in reached if not node.open]
        frontier, steps = [node for node in reached if node.open], 1
        decide(frontier, "expanded", "goes on unverified")
    drawn: list[Node] = []
    if frontier:
        drawn = await policy.extend(frontier, max(1, draws // len(frontier)), steps=steps, sampling=sampling)
    return [*ended, *dict.fromkeys(drawn)]
