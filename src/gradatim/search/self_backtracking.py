"""Sampling by a policy that takes steps back itself: where it writes the mark, the step before is drawn again."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from pydantic import NonNegativeInt, PositiveInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.scorers.confidence import mean, path_log_probabilities
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.decisions import decide
from gradatim.search.proposals import judge_solutions
from gradatim.text.backtracking import MARK, Mark, is_mark
from gradatim.tree import Node, Tree


@part
class SelfBacktrackingSearch(Search):
    """Sample, and go back where the policy writes the mark that it was taught (Yang et al., 2025, arXiv:2502.04404).

    Solutions are written step by step. Where one comes to the mark, the step before it is taken back and the solution
    goes on from before that step, in the next round; after ``rounds`` it ends there. So no solution holds a mark or a
    step that was taken back. A policy that never writes the mark (see the construction `self_backtracking`) samples as
    ever. The answer is the solution that the policy finds most likely by token, unless ``choose_by`` says otherwise.
    """

    title: ClassVar[str] = "self-backtracking"
    grows_with: ClassVar[tuple[str, ...]] = ("n",)

    n: PositiveInt = 16
    """Solutions that are begun."""
    rounds: NonNegativeInt = 2
    """How many times each may go back."""
    mark: Mark = MARK
    """The step that takes the one before it back."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        going_back = Counter({tree.root: self.n})
        for _ in range(1 + self.rounds):
            going_back = await self._write(going_back, policy, sampling)
            if not going_back or tree.budget.spent:
                break
        if scorer is not None and self.choose_by not in (None, "majority"):
            await judge_solutions(tree.solutions(), scorer, self.aggregate)
        if answer is not None:
            await give_answers(tree, answer)

    async def _write(self, running: Counter[Node], policy: Policy, sampling: Sampling | None) -> Counter[Node]:
        """Write solutions on until each is at its end or at a mark; returns where the latter are to go on from."""
        back: Counter[Node] = Counter()
        while running:
            drawn = await policy.extend(list(running), list(running.values()), sampling=sampling)
            running = Counter()
            for node in drawn:
                if is_mark(node.step.text, self.mark):
                    back[self._take_back(node)] += 1
                elif node.open:
                    running[node] += 1
        return back

    def _take_back(self, mark: Node) -> Node:
        """Where the solution that a mark ends goes on from: before the step before it, or at the prompt."""
        assert mark.parent is not None, "a mark is a step"
        decide([mark], "dropped", "a mark, which is no step of a solution")
        if mark.parent.parent is None:
            return mark.parent
        decide([mark.parent], "dropped", "the policy took it back")
        return mark.parent.parent

    def choose(self, tree: Tree, scorer: str | None) -> Node | None:
        """The solution of the highest mean log-probability of its tokens; see :class:`SelfBacktrackingSearch`."""
        if self.choose_by is not None:
            return Search.choose(self, tree, scorer)
        solutions = [leaf for leaf in tree.solutions() if not is_mark(leaf.step.text, self.mark)]
        return max(solutions, key=lambda leaf: mean(path_log_probabilities(leaf)), default=None)
