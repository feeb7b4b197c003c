"""How one solution is chosen from a tree: by score, by vote, or by vote weighted by score.

All rules are deterministic: of equals, the solution that was found first is chosen. The verifier's reward is never
looked at; votes need answers alone (:func:`give_answers`). A solution that was sampled several times is one candidate
with several votes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from gradatim.errors import GradatimError
from gradatim.event_loop import without_blocking
from gradatim.scorers.aggregation import Aggregate
from gradatim.search.ranking import path_score
from gradatim.tree import Node, Problem, Tree

ChoiceRule = Literal["score", "majority", "weighted_majority", "best_of_majority"]
"""How the answer is chosen among the finished solutions of a tree; see :func:`choose`."""
AnswerOf = Callable[[Problem, str], str | None]
"""The final answer of a solution's text: a task's :meth:`~gradatim.tasks.base.Task.answer`."""


def choose(tree: Tree, rule: ChoiceRule, name: str | None, *, aggregate: Aggregate = "last") -> Node | None:
    """The solution that a rule chooses: the best score, the most votes, the most votes weighted by score, or the best
    score among frequent answers.

    Args:
        tree: a tree with finished solutions; for all but ``"score"`` with their answers.
        rule: the rule.
        name: the scorer's name; ``"majority"`` needs none.
        aggregate: how a solution's score is made from its steps'.

    Returns:
        ``None`` if there is nothing to choose from.

    Raises:
        GradatimError: if the rule needs scores and there is no scorer.
    """
    if rule == "majority":
        return majority(tree)
    if name is None:
        raise GradatimError(f"choosing by {rule} needs a scorer; give one, or choose by majority")
    rules = {"score": best_of_n, "weighted_majority": weighted_majority, "best_of_majority": best_of_majority}
    return rules[rule](tree, name, aggregate=aggregate)


def best_of_n(tree: Tree, name: str, *, aggregate: Aggregate = "last") -> Node | None:
    """The finished solution with the highest score; unscored ones rank below all others.

    Args:
        tree: a tree with finished solutions.
        name: the scorer's name.
        aggregate: how a solution's score is made from its steps' (see
            :func:`gradatim.scorers.aggregation.solution_score`).

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
        aggregate: how a solution's score is made from its steps' (see
            :func:`gradatim.scorers.aggregation.solution_score`).

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


def best_of_majority(tree: Tree, name: str, *, frequent: float = 0.1, aggregate: Aggregate = "last") -> Node | None:
    """The highest-scored solution among those whose answer is frequent (Di et al., *Best-of-Majority*, 2025,
    arXiv:2510.03199).

    A solution that the scorer overrates is rarely one that is often found, so a weak scorer is held to what the policy
    itself finds likely.

    Args:
        tree: a tree whose solutions have their answers.
        name: the scorer's name.
        frequent: the share of all votes that an answer needs; where none has so many, the most frequent ones are taken.
        aggregate: how a solution's score is made from its steps' (see
            :func:`gradatim.scorers.aggregation.solution_score`).

    Returns:
        ``None`` if no solution has an answer.

    Raises:
        GradatimError: if the solutions' answers are not known.
    """
    return next(iter(best_of_majority_k(tree, name, 1, frequent=frequent, aggregate=aggregate)), None)


def best_of_majority_k(
    tree: Tree, name: str, k: int, *, frequent: float = 0.1, aggregate: Aggregate = "last"
) -> list[Node]:
    """The solutions to hand in where ``k`` may be: of the frequent answers, the ``k`` whose best solutions have the
    highest scores (Di et al., *Best-of-Majority*, 2025, arXiv:2510.03199).

    Args:
        tree, name, frequent, aggregate: see :func:`best_of_majority`.
        k: how many solutions, at least 1.

    Returns:
        At most ``k`` solutions of different answers, best first; fewer where fewer answers are frequent.

    Raises:
        GradatimError: if the solutions' answers are not known, or ``k`` is below 1.
    """
    if k < 1:
        raise GradatimError(f"at least one solution must be chosen, got k={k}")
    groups = _known_answers(tree)
    votes = [sum(leaf.multiplicity for leaf in group) for group in groups]
    needed = min(frequent * sum(votes), max(votes, default=0))

    def rank(leaf: Node) -> float:
        return _rank(leaf, name, aggregate)

    chosen = [max(group, key=rank) for group, found in zip(groups, votes, strict=True) if found >= needed]
    return sorted(chosen, key=rank, reverse=True)[:k]


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
