"""Questions that a model is asked about a tree: each in a tree of its own, on the first tree's budget."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from gradatim.budget import Account, Budget
from gradatim.policies.base import Policy
from gradatim.policies.server.failures import ContextError
from gradatim.text.boundaries.regular_expression import RegularExpression
from gradatim.text.solution_end import NEVER, SolutionEnd
from gradatim.tree import EndReason, Node, Problem, Tree

_NOWHERE = RegularExpression(pattern=r"(?!)")  # matches nothing: an answer is one step, however long it is


class Question(NamedTuple):
    """What is asked about the solution that ends with a node."""

    about: Node
    text: str


class Answer(NamedTuple):
    """What a model answered.

    Attributes:
        text: its words.
        whole: whether it ended itself, and not at the longest length.
    """

    text: str
    whole: bool


class Aside:
    """Asks a model about trees, and leaves no step of what it writes in them.

    Each question is the problem of a tree of its own, so it goes through the model's chat format where it has one. All
    that is asked is answered in one batch. What is read and written is charged to the budget of the tree that the
    question is about, in the order of the questions, as if each had been answered before the next was asked: the one in
    which the budget ends takes what is left and has no answers. So a limited tree is the same in every batch.

    Args:
        policy: the model.
        account: what is charged; the policy's own by default.
        samples: answers to each question.
        max_tokens: the longest answer.
        end: what ends an answer beside the model's end token.
        purpose: what the answers are drawn for; answers for another purpose are drawn independently.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        account: Account | None = None,
        samples: int = 1,
        max_tokens: int = 1024,
        end: SolutionEnd = NEVER,
        purpose: str = "aside",
    ) -> None:
        self._policy, self._account, self._samples, self._purpose = policy, account, samples, purpose
        self._sampling = replace(policy.sampling, boundary=_NOWHERE, solution_end=end, max_step_tokens=max_tokens)
        self._told = False  # of a question that was too long

    async def answers(self, questions: Sequence[Question]) -> list[list[Answer] | None]:
        """All answers to each question; ``None`` where the budget ended before they were whole, or the question is
        longer than the model reads.

        Raises:
            Exception: the first that the policy raises; the others are not waited for.
        """
        trees = [self._tree(question) for question in questions]
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._ask(tree)) for tree in trees]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        paid = [_pay(question.about.tree.budget, tree) for question, tree in zip(questions, trees, strict=True)]
        return [task.result() if each else None for task, each in zip(asked, paid, strict=True)]

    def _tree(self, question: Question) -> Tree:
        about = question.about
        problem = Problem(f"{about.tree.problem.id} ({self._purpose}, step {about.depth})", question.text)
        return Tree(problem, seed=about.key, budget=Budget(about.tree.budget.remaining))

    async def _ask(self, tree: Tree) -> list[Answer] | None:
        try:
            drawn = await self._policy.extend(
                [tree.root], self._samples, steps=None, sampling=self._sampling, account=self._account
            )
        except ContextError as error:
            self._tell(error)
            return None
        finally:
            self._policy.release(tree)
        if len(drawn) < self._samples or any(node.open or node.step.end is EndReason.BUDGET for node in drawn):
            return None
        return [Answer(node.text, node.finished) for node in drawn]

    def _tell(self, error: ContextError) -> None:
        if not self._told:
            self._told = True
            warnings.warn(
                f"a question ({self._purpose}) is left out, as is whatever else is too long: {error}", stacklevel=2
            )


def _pay(budget: Budget, tree: Tree) -> bool:
    """Charge what a question's tree cost; returns whether the budget had all of it left."""
    for name, spent in tree.budget.accounts.items():
        account = Account(name, spent.parameters)
        if not budget.take(account, read=spent.read) or budget.take_up_to(account, spent.written) < spent.written:
            return False
    return True
