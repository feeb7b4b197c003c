"""How one solution is chosen from a tree: by score, by vote, or by vote weighted by score.

All rules are deterministic: of equals, the solution that was found first is chosen. The verifier's reward is never
looked at; votes need answers alone (:func:`give_answers`). A solution that was sampled several times is one candidate
with several votes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from gradatim.errors import GradatimError
from gradatim.event_loop import without_blocking
from gradatim.tree import Node, Problem, Tree

Aggregate = Literal["last", "min", "product", "mean"]
AnswerOf = Callable[[Problem, str], str | None]
"""The final answer of a solution's text: a task's :meth:`~gradatim.tasks.base.Task.answer`."""


def solution_score(scores: Sequence[float], aggregate: Aggregate = "last") -> float:
    """The score of a partial or whole solution from those of its steps, at least one.

    ``"last"`` takes the last step's; ``"min"``, ``"product"`` and ``"mean"`` combine all steps' (Lightman et al.,
    *Let's Verify Step by Step*, 2023, arXiv:2305.20050).
    """
    if aggregate == "last":
        return scores[-1]
    if aggregate == "min":
        return min(scores)
    if aggregate == "product":
        return math.prod(scores)
    return sum(scores) / len(scores)


def path_score(node: Node, name: str, aggregate: Aggregate = "last") -> float | None:
    """The score of the solution that ends with ``node``, from what the scorer ``name`` gave its steps.

    See :func:`solution_score`. ``None`` if a score that is needed is missing.

    Raises:
        GradatimError: if a score is not a finite number, so that nothing can be ranked by it.
    """
    steps = [node] if aggregate == "last" else node.path()[1:]
    scores = [checked_score(step, name) for step in steps if name in step.scores]
    return solution_score(scores, aggregate) if scores and len(scores) == len(steps) else None


def checked_score(node: Node, name: str) -> float:
    """The score that ``name`` gave a node.

    Raises:
        GradatimError: if it is not a finite number.
    """
    score = node.scores[name]
    if not math.isfinite(score):
        raise GradatimError(
            f"the scorer {name!r} gave a step of problem {node.tree.problem.id!r} the score {score}, which is not a "
            "finite number; use a scorer that gives one, or leave the step unscored"
        )
    return score


def best_of_n(tree: Tree, name: str, *, aggregate: Aggregate = "last") -> Node | None:
    """The finished solution with the highest score; unscored ones rank below all others.

    Args:
        tree: a tree with finished solutions.
        name: the scorer's name.
        aggregate: how a solution's score is made from its steps' (see :func:`solution_score`).

    Returns:
        ``None`` if no solution was finished.
    """
    return max(tree.solutions(), key=lambda leaf: _rank(leaf, name, aggregate), default=None)


def majority(tree: Tree) -> Node | None:
    """A solution with the most frequent answer: self-consistency (Wang et al., 2022, arXiv:2203.11171).

    Of the solutions with that answer, the one that was sampled most often.

    Returns:
        ``None`` if no solution has an answer.

    Raises:
        GradatimError: if the solutions' answers are not known.
    """
    groups = _known_answers(tree)
    winner = max(groups, key=lambda group: sum(leaf.multiplicity for leaf in group), default=[])
    return max(winner, key=lambda leaf: leaf.multiplicity, default=None)


def weighted_majority(tree: Tree, name: str, *, aggregate: Aggregate = "last") -> Node | None:
    """A solution with the answer of the highest sum of scores (Li et al., *DiVeRSe*, 2022, arXiv:2206.02336).

    Each time a solution was sampled is one vote, weighted by its score; an unscored solution's votes weigh nothing. Of
    the solutions with the winning answer, the one with the highest score.

    Args:
        tree: a tree whose solutions have their answers.
        name: the scorer's name; scores must not be negative.
        aggregate: how a solution's score is made from its steps' (see :func:`solution_score`).

    Returns:
        ``None`` if no solution has an answer.

    Raises:
        GradatimError: if the solutions' answers are not known, or a score is negative.
    """

    def votes(leaf: Node) -> float:
        score = path_score(leaf, name, aggregate) or 0.0
        if score < 0:
            raise GradatimError(
                f"score-weighted majority needs scores of 0 or more, but {name!r} gave {score}; "
                "use a scorer that gives probabilities"
            )
        return score * leaf.multiplicity

    groups = _known_answers(tree)
    winner = max(groups, key=lambda group: math.fsum(votes(leaf) for leaf in group), default=[])
    return max(winner, key=lambda leaf: _rank(leaf, name, aggregate), default=None)


def _rank(leaf: Node, name: str, aggregate: Aggregate) -> float:
    score = path_score(leaf, name, aggregate)
    return -math.inf if score is None else score


async def give_answers(tree: Tree, answer: AnswerOf) -> None:
    """Write the answer of every finished solution that was not asked for it yet, while the event loop goes on."""
    for leaf in tree.solutions():
        if not leaf.answered:
            leaf.answer = await without_blocking(answer, tree.problem, leaf.text)


def by_answer(tree: Tree) -> list[list[Node]]:
    """The finished solutions grouped by answer, in the order in which they were found; no answer is no group."""
    groups: dict[str, list[Node]] = {}
    for leaf in tree.solutions():
        if leaf.answer is not None:
            groups.setdefault(leaf.answer, []).append(leaf)
    return list(groups.values())


def _known_answers(tree: Tree) -> list[list[Node]]:
    solutions = tree.solutions()
    if solutions and not any(leaf.answered or leaf.reward is not None for leaf in solutions):
        raise GradatimError(
            f"the solutions of problem {tree.problem.id!r} have no answers yet; grade the tree, or give the search "
            "the task's answer"
        )
    return by_answer(tree)
