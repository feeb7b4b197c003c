"""How well a policy solves problems: greedy and sampled accuracy, pass@k, best-of-n and majority."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradatim.errors import GradatimError
from gradatim.evaluation.bootstrap import Estimate, bootstrap_mean, bootstrap_ratio
from gradatim.evaluation.metrics import Sample, best_of_n, majority, weighted_majority
from gradatim.proportions import pass_at_k
from gradatim.scorers.aggregation import Aggregate
from gradatim.search.ranking import path_score
from gradatim.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """A policy's accuracy on a set of problems.

    Attributes:
        pass_at_1: share of right solutions among a problem's samples, over problems.
        tokens_per_solved: tokens spent on all samples over the number of right samples; ``None`` if none is right.
        pass_at_k: chance that one of ``k`` samples is right, by ``k``.
        majority: accuracy of the most frequent of ``n`` answers, by ``n``.
        best_of_n: accuracy of the highest-scored of ``n`` samples, by ``n``; empty without a scorer.
        weighted_majority: accuracy of the answer with the highest sum of scores, by ``n``; empty without a scorer
            or if its scores can be negative.
        greedy: accuracy of the likeliest solution, where it was measured.
        samples: solutions sampled per problem (the fewest, if problems differ).
        solutions: solutions sampled in all.
        right: how many of them are right.
    """

    pass_at_1: Estimate
    tokens_per_solved: Estimate | None
    pass_at_k: dict[int, Estimate] = field(default_factory=dict)
    majority: dict[int, Estimate] = field(default_factory=dict)
    best_of_n: dict[int, Estimate] = field(default_factory=dict)
    weighted_majority: dict[int, Estimate] = field(default_factory=dict)
    greedy: Estimate | None = None
    samples: int = 0
    solutions: int = 0
    right: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "problems": self.pass_at_1.n,
            "samples": self.samples,
            "solutions": self.solutions,
            "right": self.right,
            **self.pass_at_1.fields("pass_at_1"),
            **_fields_or_none(self.tokens_per_solved, "tokens_per_solved"),
            **({} if self.greedy is None else self.greedy.fields("greedy")),
            "pass_at_k": _by_count(self.pass_at_k),
            "majority": _by_count(self.majority),
            "best_of_n": _by_count(self.best_of_n),
            "weighted_majority": _by_count(self.weighted_majority),
        }


def samples_of(tree: Tree, scorer: str | None = None, aggregate: Aggregate = "last") -> list[Sample]:
    """The independent solutions of a graded tree, one for each time a leaf was sampled.

    A cut-off leaf is a solution of reward 0 without an answer; open leaves are none. A solution's score is made of
    what ``scorer`` gave its steps (the last one's by default); one that was not scored (the budget was spent) ranks
    below all others.

    Raises:
        GradatimError: if a finished leaf was not graded.
    """
    samples: list[Sample] = []
    for leaf in tree.leaves():
        if leaf.open or leaf.is_root:
            continue
        if leaf.finished and leaf.reward is None:
            raise GradatimError(
                f"a solution of problem {tree.problem.id!r} has no reward; grade the tree, and give the "
                "problem a reference answer if it has none"
            )
        sample = Sample(leaf.reward or 0.0, leaf.answer, _score(leaf, scorer, aggregate), correct=bool(leaf.correct))
        samples.extend([sample] * leaf.multiplicity)
    return samples


def can_weigh(samples: Sequence[Sequence[Sample]]) -> bool:
    """Whether votes can be weighted by the samples' scores: none is negative."""
    return all(not -math.inf < sample.score < 0 for group in samples for sample in group)


def policy_result(
    samples: Sequence[Sequence[Sample]],
    tokens: Sequence[float],
    *,
    counts: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    scored: bool = False,
    greedy: Sequence[float] | None = None,
    seed: int = 0,
) -> PolicyResult:
    """Measure a policy from its sampled solutions.

    Args:
        samples: ``[problems][samples]``.
        tokens: ``[problems]``, what all samples of the problem cost.
        counts: the ``k`` and ``n`` to report; those above the number of samples are left out.
        scored: whether the samples' scores mean something, so that selection by score is reported.
        greedy: ``[problems]``, whether the likeliest solution is right (1 or 0).
        seed: seeds resampling and intervals.

    Raises:
        GradatimError: if there are no problems, or a problem has no samples.
    """
    fewest = min((len(group) for group in samples), default=0)
    if not fewest:
        raise GradatimError("every problem needs at least one sampled solution; raise the token budget or the count")
    usable = [count for count in counts if count <= fewest]
    right = [sum(bool(sample.correct) for sample in group) for group in samples]

    def over(value: Callable[[Sequence[Sample], int], float], when: bool = True) -> dict[int, Estimate]:
        return {n: bootstrap_mean([value(group, n) for group in samples], seed=seed) for n in usable if when}

    return PolicyResult(
        pass_at_1=bootstrap_mean([count / len(group) for count, group in zip(right, samples, strict=True)], seed=seed),
        tokens_per_solved=bootstrap_ratio(tokens, right, seed=seed) if any(right) else None,
        pass_at_k=over(lambda group, k: pass_at_k(len(group), sum(bool(s.correct) for s in group), k)),
        majority=over(lambda group, n: majority(group, n, seed=seed)),
        best_of_n=over(best_of_n, when=scored),
        weighted_majority=over(
            lambda group, n: weighted_majority(group, n, seed=seed), when=scored and can_weigh(samples)
        ),
        greedy=None if greedy is None else bootstrap_mean(greedy, seed=seed),
        samples=fewest,
        solutions=sum(map(len, samples)),
        right=sum(right),
    )


def _score(leaf: Node, scorer: str | None, aggregate: Aggregate) -> float:
    if scorer is None:
        return 0.0
    score = path_score(leaf, scorer, aggregate)
    return -math.inf if score is None else score


def _fields_or_none(estimate: Estimate | None, name: str) -> dict[str, Any]:
    return {name: None, f"{name}_interval": None} if estimate is None else estimate.fields(name)


def _by_count(estimates: dict[int, Estimate]) -> dict[str, Any]:
    return {str(count): estimate.to_json() for count, estimate in estimates.items()}
