"""Methods against each other at equal compute, on the same problems: curves, their frontier, and paired tests.

A method is run at several sizes; each size is a point: how often each problem was solved, and what that cost. Between
two points accuracy is interpolated linearly in the logarithm of the tokens, problem by problem, so that a difference at
equal tokens is a mean of differences of the same problems and has a paired interval and test. Nothing is extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradatim.errors import GradatimError
from gradatim.evaluation.bootstrap import Estimate, bootstrap_difference, bootstrap_mean
from gradatim.evaluation.compare import Cost, MethodResult, estimated_flops

Solved = npt.NDArray[np.float64]
SIGNIFICANT = 0.05
"""A difference is claimed if so large a one would come about by chance less often than this."""
_PERMUTATIONS = 10_000


@dataclass(frozen=True, eq=False)
class Point:
    """One method at one size.

    Attributes:
        solved: ``[seeds, problems]``, the chance that the chosen solution is right (0 or 1 where it was chosen once).
        spending: mean cost per problem of each account.
        seconds: wall time per problem, all problems of a run at once; ``None`` where it was not measured.
        size: the value of the option that was varied; ``None`` where there is none.
    """

    solved: Solved
    spending: Mapping[str, Cost]
    seconds: float | None = None
    size: int | None = None

    @property
    def tokens(self) -> float:
        """Mean tokens per problem, of all accounts."""
        return sum(cost.tokens for cost in self.spending.values())

    @property
    def by_problem(self) -> Solved:
        """``[problems]``, the mean over seeds."""
        means: Solved = self.solved.mean(axis=0)
        return means


@dataclass(frozen=True)
class Curve:
    """One method at all its sizes, cheapest first.

    Attributes:
        name: of the method.
        scorer: that guides or chooses, or ``"none"``.
        points: by their tokens.
        policy: whose steps are searched.
    """

    name: str
    scorer: str
    points: tuple[Point, ...]
    policy: str = "policy"

    def results(self, seed: int = 0) -> list[MethodResult]:
        """The points with intervals over problems."""
        return [
            MethodResult(
                self.name,
                self.scorer,
                bootstrap_mean(point.by_problem, seed=seed),
                point.spending,
                estimated_flops(point.spending),
                {} if point.size is None else {"size": point.size},
            )
            for point in self.points
        ]

    def at(self, tokens: float) -> Solved | None:
        """``[problems]``, how often each is solved with ``tokens`` a problem on average; ``None`` outside of what was
        measured."""
        costs = [point.tokens for point in self.points]
        if not costs or not costs[0] <= tokens <= costs[-1]:
            return None
        right = next(place for place, cost in enumerate(costs) if cost >= tokens)
        if costs[right] == tokens:
            return self.points[right].by_problem
        low, high = self.points[right - 1], self.points[right]
        share = math.log(tokens / low.tokens) / math.log(high.tokens / low.tokens)
        return low.by_problem + share * (high.by_problem - low.by_problem)

    def tokens_for(self, accuracy: float) -> float | None:
        """The fewest tokens at which the curve reaches ``accuracy``; those of its first point where that is accurate
        enough already, ``None`` where no point is."""
        for place, point in enumerate(self.points):
            value = float(point.by_problem.mean())
            if value >= accuracy:
                if place == 0:
                    return point.tokens
                before = self.points[place - 1]
                start = float(before.by_problem.mean())
                share = (accuracy - start) / (value - start)
                return before.tokens * math.exp(share * math.log(point.tokens / before.tokens))
        return None


def curve(name: str, scorer: str, points: Sequence[Point], policy: str = "policy") -> Curve:
    """A curve of points in any order."""
    return Curve(name, scorer, tuple(sorted(points, key=lambda point: point.tokens)), policy)


@dataclass(frozen=True, slots=True)
class Difference:
    """One method against another at equal tokens.

    Attributes:
        method, reference: their names.
        tokens: per problem, of both.
        difference: accuracy of the method minus that of the reference, paired over problems.
        p: chance of a difference as large if the two were alike: signs of the problems' differences flipped at random.
        reference_tokens: what the reference needs for the method's accuracy; ``None`` where it does not reach it.
        corrected: ``p`` corrected for all tests of one report (:func:`corrected`).
    """

    method: str
    reference: str
    tokens: float
    difference: Estimate
    p: float
    reference_tokens: float | None
    corrected: float = 1.0

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``undecided``, by the interval and the corrected chance together."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or self.corrected >= SIGNIFICANT:
            return "undecided"
        return "better" if low > 0 else "worse" if high < 0 else "undecided"

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "reference": self.reference,
            "tokens": self.tokens,
            **self.difference.fields("difference"),
            "problems": self.difference.n,
            "p": self.p,
            "p_corrected": self.corrected,
            "verdict": self.verdict,
            "reference_tokens": self.reference_tokens,
        }


def differences(method: Curve, reference: Curve, *, seed: int = 0) -> list[Difference]:
    """The method against the reference at the tokens of each of its points that lie within the reference's.

    Raises:
        GradatimError: if the two were not run on equally many problems.
    """
    found = []
    for point in method.points:
        other = reference.at(point.tokens)
        if other is None:
            continue
        own = point.by_problem
        if own.shape != other.shape:
            raise GradatimError(
                f"{method.name} was run on {len(own):,} problems and {reference.name} on {len(other):,}; compare both "
                "on the same problems"
            )
        difference = bootstrap_difference(other, own, seed=seed)
        needed = reference.tokens_for(float(own.mean()))
        p = sign_flip_test(own - other, seed=seed)
        found.append(Difference(method.name, reference.name, point.tokens, difference, p, needed))
    return found


def sign_flip_test(changes: npt.ArrayLike, *, permutations: int = _PERMUTATIONS, seed: int = 0) -> float:
    """The two-sided chance that random signs give a mean as far from 0 as ``changes`` (``[problems]``) have it.

    A paired permutation test (Fisher, 1935); the value itself counts as one of the permutations, so that the chance is
    never 0.
    """
    values = np.asarray(changes, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0
    generator = np.random.default_rng(seed)
    rows = max(1, 2_000_000 // len(values))
    observed, as_far, done = abs(values.sum()), 0, 0
    while done < permutations:
        count = min(rows, permutations - done)
        signs = generator.integers(0, 2, size=(count, len(values)), dtype=np.int8) * 2.0 - 1.0
        as_far += int((np.abs(signs @ values) >= observed * (1 - 1e-12)).sum())
        done += count
    return (as_far + 1) / (permutations + 1)


def frontier(curves: Sequence[Curve]) -> list[tuple[str, Point]]:
    """The points that no cheaper or equally cheap point is more accurate than, cheapest first, with their methods."""
    points = [(each.name, point) for each in curves for point in each.points]
    points.sort(key=lambda named: (named[1].tokens, -named[1].by_problem.mean()))
    best, kept = -math.inf, []
    for name, point in points:
        accuracy = float(point.by_problem.mean())
        if accuracy > best:
            best = accuracy
            kept.append((name, point))
    return kept


def corrected(tests: Sequence[Difference]) -> list[Difference]:
    """The same tests with their chances corrected for how many there are (Holm, 1979), in their order."""
    chances = holm([test.p for test in tests])
    return [replace(test, corrected=chance) for test, chance in zip(tests, chances, strict=True)]


def holm(chances: Sequence[float]) -> list[float]:
    """Chances of several tests, corrected for how many there are (Holm, 1979), in their order."""
    order = sorted(range(len(chances)), key=lambda place: chances[place])
    found, largest = [1.0] * len(chances), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, chances[place] * (len(chances) - rank)))
        found[place] = largest
    return found


def seed_deviation(point: Point) -> float | None:
    """Standard deviation of a point's accuracy over seeds; ``None`` for a single one."""
    means = point.solved.mean(axis=1)
    return float(means.std(ddof=1)) if len(means) > 1 else None
