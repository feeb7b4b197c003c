"""What a search is: how compute is spent on one problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from gradatim.errors import GradatimError
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.selection import AnswerOf, best_of_n, majority
from gradatim.tree import Node, Tree


class Search(ABC):
    """One search algorithm with its options; a subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    It decides which nodes are expanded, and nothing else: where a solution ends, how many steps it may have and what
    a tree may cost are the same for all.

    Attributes:
        title: what reports call it.
        is_guided: whether it needs a scorer.
        scores_steps: whether it has every step scored that it grows from, where there is a scorer; so values that are
            wanted of all steps need no second pass.
        grows_with: the options that make more solutions when they are raised.
    """

    __slots__ = ()

    title: ClassVar[str]
    is_guided: ClassVar[bool] = False
    scores_steps: ClassVar[bool] = False
    grows_with: ClassVar[tuple[str, ...]] = ()

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
            answer: what a solution answers, for a search that votes (:func:`gradatim.search.selection.give_answers`).
                Whether it is right no search asks.

        Raises:
            GradatimError: if the search needs a scorer and there is none.
        """

    def choose(self, tree: Tree, scorer: str | None) -> Node | None:
        """The solution that the search gives as its answer: by the scorer's scores, or by vote without a scorer.

        Args:
            tree: a tree that was searched.
            scorer: the scorer's name.

        Returns:
            ``None`` if no solution was finished.
        """
        return majority(tree) if scorer is None else best_of_n(tree, scorer)

    def _guide(self, scorer: Scorer | None) -> Scorer:
        if scorer is None:
            raise GradatimError(f"{self.title} needs a scorer to guide it; give one, or use sampling")
        return scorer
