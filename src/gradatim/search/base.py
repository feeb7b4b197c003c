"""What a search is: how compute is spent on one problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from gradatim.errors import GradatimError
from gradatim.part import options
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.aggregation import Aggregate
from gradatim.scorers.base import Scorer
from gradatim.search.choosing import AnswerOf, ChoiceRule, choose
from gradatim.tree import Node, Tree


@options
class Search(ABC):
    """One search algorithm with its options; a subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    It decides which nodes are expanded, and nothing else: where a solution ends, how many steps it may have and what
    a tree may cost are the same for all.

    Attributes:
        title: what reports call it.
        is_guided: whether it needs a scorer.
        grows_with: the options that make more solutions when they are raised.
    """

    title: ClassVar[str]
    is_guided: ClassVar[bool] = False
    grows_with: ClassVar[tuple[str, ...]] = ()

    choose_by: ChoiceRule | None = None
    """How the answer is chosen among the finished solutions: by `score`, by `majority`, by `weighted_majority` or by
    `best_of_majority`; `null` is by score where there is a scorer and by majority where there is none."""
    aggregate: Aggregate = "last"
    """How a path's score is made of its steps': the `last` one's, their `min`, `product`, `mean`, sum of `log_odds` or
    `softmin`."""

    @abstractmethod
    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        """Search ``tree``, as far as its budget goes.

        Args:
            tree: the problem's tree.
            policy: proposes steps. It charges the prompt once, and every token that it writes.
            scorer: scores steps, higher is better; it charges what it reads. What the budget left unscored ranks below
                all that is scored, and equal scores in the order in which the steps were proposed.
            sampling: how steps are sampled; the policy's own way by default.
            answer: what a solution answers, for a search that votes (:func:`gradatim.search.choosing.give_answers`).
                Whether it is right no search asks.

        Raises:
            GradatimError: if the search needs a scorer and there is none.
        """

    @property
    def rule(self) -> ChoiceRule | None:
        """The rule by which it chooses its answer, where its options say one."""
        return self.choose_by

    def choose(self, tree: Tree, scorer: str | None) -> Node | None:
        """The solution that the search gives as its answer, as ``choose_by`` says.

        Args:
            tree: a tree that was searched.
            scorer: the scorer's name.

        Returns:
            ``None`` if no solution was finished.
        """
        rule = self.choose_by or ("majority" if scorer is None else "score")
        return choose(tree, rule, scorer, aggregate=self.aggregate)

    def _guide(self, scorer: Scorer | None) -> Scorer:
        if scorer is None:
            raise GradatimError(f"{self.title} needs a scorer to guide it; give one, or use sampling")
        return scorer
