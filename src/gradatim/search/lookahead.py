"""Lookahead search: a beam whose candidates are judged by where they lead, a few simulated steps ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import NonNegativeInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.decisions import SIMULATED, keep_and_prune
from gradatim.search.proposals import by_start, in_round, judge
from gradatim.search.ranking import best
from gradatim.search.vg_search import ByRound
from gradatim.tree import Node, Tree


@part
class Lookahead(Search):
    """Lookahead search: a beam that is scored a few simulated steps ahead (Snell et al., 2024, arXiv:2408.03314).

    Every round proposes steps as beam search does (:class:`gradatim.search.beam.Beam`). From each candidate up to
    ``steps`` further ones are simulated at temperature 0, and where that ends is scored in the candidate's place; a
    candidate that ends the solution is scored itself. The ``width`` best open candidates are kept. With no steps ahead
    this is beam search, node for node.

    Simulated steps stay in the tree, noted as ``simulated`` as long as no round proposes them; a solution that a
    simulation finished is a solution like others, and may be chosen. A simulation that a limit cut off tells nothing:
    its candidate ranks last.
    """

    title: ClassVar[str] = "lookahead search"
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("width",)

    width: ByRound = 4
    """Partial solutions that are kept in each round: a number, or one for each round."""
    branch: ByRound = 4
    """Steps that are proposed for each of them: a number, or one for each round."""
    steps: NonNegativeInt = 2
    """Steps that are simulated from each candidate; 0 is beam search."""

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
        frontier, number = [tree.root], 0
        while frontier and not tree.budget.spent:
            keep, each = in_round(self.width, number), in_round(self.branch, number)
            drawn = await policy.extend(frontier, max(1, keep * each // len(frontier)), sampling=sampling)
            proposed = list(dict.fromkeys(drawn))
            for node in proposed:
                node.notes.pop(SIMULATED, None)  # it may be a step of an earlier simulation
            candidates = [node for node in proposed if node.open]
            ends = await self._simulate(candidates, policy, sampling or policy.sampling)
            await judge([node for node in proposed if not node.open] + list(ends), frontier, guide, self.aggregate)
            frontier = [ends[end] for end in best(list(ends), keep, guide.name, self.aggregate)]
            by = f"{guide.name}, {self.steps} steps ahead" if self.steps else guide.name
            keep_and_prune(candidates, frontier, by)
            number += 1
        if answer is not None:
            await give_answers(tree, answer)

    async def _simulate(self, candidates: Sequence[Node], policy: Policy, sampling: Sampling) -> dict[Node, Node]:
        """The candidates by where their simulations end; those that the budget does not reach are left out."""
        if not self.steps:
            return {node: node for node in candidates}
        likeliest = replace(sampling, temperature=0.0)
        ends = await policy.extend(candidates, 1, steps=self.steps, sampling=likeliest)
        found = {end: node for node, below in by_start(candidates, ends).items() for end in below}
        for end, node in found.items():
            for step in end.path()[node.depth + 1 :]:
                step.notes[SIMULATED] = True
        return found
