"""Early-stopping self-consistency: sample in small windows, and stop when the answers of one agree."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.around import InnerSearch, SearchAround
from gradatim.search.choosing import AnswerOf, choose, give_answers
from gradatim.search.decisions import decide
from gradatim.search.sampling import IndependentSampling
from gradatim.tree import Node, Tree


@part
class EarlyStopping(SearchAround):
    """Run a search window by window until the answers of one window agree (Li et al., 2024, arXiv:2401.10480).

    Each window is one run of the inner search on the same tree. All solutions that were closed in a window vote,
    each as often as it was drawn; one without an answer (cut off, or none can be read) agrees with no other. It ends
    when the largest vote has a share of at least ``threshold`` of the window, when all ``windows`` are used, when
    one added no solution, or when the budget is spent. The answer is the majority of all windows, unless ``choose_by``
    or the inner search's own says otherwise.
    """

    title: ClassVar[str] = "early-stopping self-consistency"
    enlarged_by: ClassVar[tuple[str, ...]] = ("windows",)

    search: InnerSearch = IndependentSampling(n=5)
    """The search that is run for each window."""
    windows: PositiveInt = 8
    """Windows at most."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of a window's solutions that must have the same answer; 1 asks for all of them."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        if answer is None:
            raise GradatimError(
                f"{self.title} stops when answers agree, so it needs to know what solutions answer; give it the "
                "task's answer"
            )
        for window in range(1, self.windows + 1):
            before = _draws(tree)
            await self.search(tree, policy, scorer, sampling=sampling, answer=answer)
            await give_answers(tree, answer)
            drawn = _draws(tree) - before
            agreeing, of = max(_votes(drawn).values(), default=0), drawn.total()
            decide([tree.root], "expanded", f"window {window}: {agreeing} of {of} solutions agree")
            if not of or agreeing / of >= self.threshold or tree.budget.spent:
                break

    def choose(self, tree: Tree, scorer: str | None) -> Node | None:
        """The most frequent answer of all windows; see :class:`EarlyStopping`."""
        return choose(tree, self.rule or "majority", scorer, aggregate=self.aggregate)


def _draws(tree: Tree) -> Counter[Node]:
    """How often each solution that is closed, finished or cut off, was drawn."""
    return Counter({node: node.multiplicity for node in tree.nodes[1:] if not node.open})


def _votes(drawn: Counter[Node]) -> Counter[str]:
    """The votes for each answer."""
    votes: Counter[str] = Counter()
    for node, times in drawn.items():
        if node.answer is not None:
            votes[node.answer] += times
    return votes
