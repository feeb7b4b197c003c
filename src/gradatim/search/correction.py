"""Stepwise correction: find the first bad step of a solution, write on from before it, and look again."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.aggregation import Aggregate
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.decisions import decide
from gradatim.search.ranking import best, checked_score
from gradatim.tree import Node, Tree


@part
class Correction(Search):
    """Revise a solution from its first bad step on, again and again (Wu et al., *StepCo*, 2024, arXiv:2410.12934).

    A whole solution is written and all its steps are scored. From the first one below ``threshold`` on it is written
    anew, with what stands before it kept; of ``draws`` revisions the one is taken whose worst step is best. That is
    repeated until no step is bad, for ``rounds`` at most, or until the budget is spent. (The paper tells the policy
    which step was found wrong; here it is drawn again.) The answer is the solution whose worst step is best.
    """

    title: ClassVar[str] = "stepwise correction"
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("rounds", "draws")

    rounds: PositiveInt = 8
    """Revisions of the solution at most."""
    draws: PositiveInt = 1
    """Solutions that are written in each round, the first one included."""
    threshold: float = 0.5
    """The score below which a step is bad."""
    aggregate: Aggregate = "min"

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
        start = tree.root
        for number in range(1 + self.rounds):
            solution = await self._revise(start, policy, guide, sampling)
            bad = None if solution is None else self._first_bad(solution, start, guide.name)
            if bad is None:
                break
            why = "cut off" if bad.step.end.cuts_off else f"the first step below {self.threshold:g} by {guide.name}"
            if number == self.rounds or tree.budget.spent:
                decide([bad], "dropped", why)
                break
            decide([bad], "dropped", f"{why}: revised from here")
            assert bad.parent is not None, "the prompt is not scored"
            start = bad.parent
        if answer is not None:
            await give_answers(tree, answer)

    async def _revise(self, start: Node, policy: Policy, guide: Scorer, sampling: Sampling | None) -> Node | None:
        """The best of some new solutions that begin with the path to ``start``, with all their steps scored."""
        leaves = list(dict.fromkeys(await policy.extend([start], self.draws, steps=None, sampling=sampling)))
        new = [node for leaf in leaves for node in leaf.path()[start.depth + 1 :]]
        await guide.score([node for node in new if not node.step.end.cuts_off])
        return next(iter(best(leaves, 1, guide.name, self.aggregate)), None)

    def _first_bad(self, solution: Node, start: Node, name: str) -> Node | None:
        """The first step behind ``start`` that is bad or cut off; one without a score is not known to be."""
        for node in solution.path()[start.depth + 1 :]:
            if node.step.end.cuts_off or (name in node.scores and checked_score(node, name) < self.threshold):
                return node
        return None
