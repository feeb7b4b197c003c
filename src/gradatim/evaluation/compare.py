"""Methods compared at equal compute: accuracy against the tokens that models read and wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from gradatim.budget import Budget
from gradatim.errors import GradatimError
from gradatim.evaluation.bootstrap import Estimate, bootstrap_mean


@dataclass(frozen=True, slots=True)
class Cost:
    """What one account of a budget was charged, or of several budgets on average.

    Attributes:
        read: tokens that its model read.
        written: tokens that it wrote.
        parameters: the model's size; ``None`` where it is unknown, or models of several sizes were charged.
    """

    read: float = 0.0
    written: float = 0.0
    parameters: int | None = None

    @property
    def tokens(self) -> float:
        return self.read + self.written


@dataclass(frozen=True, slots=True)
class MethodResult:
    """How accurate one method was at one setting, and what that cost.

    Attributes:
        method: its name; results of equal method and scorer at different settings make a curve.
        scorer: the scorer that guided or selected, or ``"none"``.
        accuracy: share of problems whose selected solution is right.
        spending: mean cost per problem of each account of the budgets, by its name.
        flops: estimated floating-point operations per problem, where the sizes of all models are known.
        settings: what the method was run with.
    """

    method: str
    scorer: str
    accuracy: Estimate
    spending: Mapping[str, Cost]
    flops: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> float:
        """Mean tokens per problem, of all accounts."""
        return sum(cost.tokens for cost in self.spending.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "scorer": self.scorer,
            "tokens": self.tokens,
            **self.accuracy.fields("accuracy"),
            "problems": self.accuracy.n,
            "spending": {name: asdict(cost) for name, cost in self.spending.items()},
            "flops": self.flops,
            "settings": dict(self.settings),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MethodResult:
        """Restore a result from :meth:`to_json`'s object."""
        accuracy = Estimate.from_fields(value, "accuracy", value["problems"])
        spending = {name: Cost(**cost) for name, cost in value["spending"].items()}
        return cls(value["method"], value["scorer"], accuracy, spending, value["flops"], value["settings"])


def method_result(
    method: str,
    scorer: str,
    rewards: Sequence[float],
    spending: Sequence[Mapping[str, Cost]],
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> MethodResult:
    """Sum up one method's outcome on many problems.

    Args:
        method: the method's name.
        scorer: the scorer's name, or ``"none"``.
        rewards: ``[problems]``, the chance that the solution that the method selected is right.
        spending: ``[problems]``, the cost of each account (see :func:`spending_of`).
        settings: what the method was run with.
        seed: seeds the interval.

    Raises:
        GradatimError: if there are no problems, or not one spending for each.
    """
    if len(rewards) != len(spending):
        raise GradatimError(f"{len(rewards)} rewards but {len(spending)} budgets; give one of each for every problem")
    accuracy = bootstrap_mean(rewards, seed=seed)
    mean = mean_spending(spending)
    return MethodResult(method, scorer, accuracy, mean, estimated_flops(mean), dict(settings or {}))


def spending_of(budget: Budget) -> dict[str, Cost]:
    """What a budget has counted, by the names of its accounts."""
    return {name: Cost(spent.read, spent.written, spent.parameters) for name, spent in budget.accounts.items()}


def mean_spending(spending: Sequence[Mapping[str, Cost]]) -> dict[str, Cost]:
    """The mean cost of each account over budgets; one that a budget does not have cost nothing there."""
    means: dict[str, Cost] = {}
    for name in dict.fromkeys(name for each in spending for name in each):
        costs = [each[name] for each in spending if name in each]
        read, written = sum(cost.read for cost in costs), sum(cost.written for cost in costs)
        sizes = {cost.parameters for cost in costs if cost.tokens}
        means[name] = Cost(read / len(spending), written / len(spending), sizes.pop() if len(sizes) == 1 else None)
    return means


def estimated_flops(spending: Mapping[str, Cost]) -> float | None:
    """Floating-point operations of the forward passes: 2 per parameter and token (Kaplan et al., 2020).

    Attention over the context is left out; it is small while contexts are short against the model's width.

    Returns:
        ``None`` if the size of a model that cost anything is unknown.
    """
    flops = 0.0
    for cost in spending.values():
        if cost.tokens and cost.parameters is None:
            return None
        flops += 2.0 * cost.tokens * (cost.parameters or 0)
    return flops


def curves(results: Sequence[MethodResult]) -> dict[tuple[str, str], list[MethodResult]]:
    """Results grouped by method and scorer in order of first appearance, each curve sorted by tokens."""
    grouped: dict[tuple[str, str], list[MethodResult]] = {}
    for result in results:
        grouped.setdefault((result.method, result.scorer), []).append(result)
    return {name: sorted(curve, key=lambda result: result.tokens) for name, curve in grouped.items()}


def accuracy_at_tokens(curve: Sequence[MethodResult], tokens: float) -> float | None:
    """A method's accuracy at ``tokens`` per problem, interpolated linearly in log tokens between measured points.

    Returns:
        ``None`` outside the measured range: nothing is extrapolated.
    """
    points = sorted(curve, key=lambda result: result.tokens)
    for point in points:
        if point.tokens == tokens:
            return point.accuracy.value
    for left, right in pairwise(points):
        if left.tokens < tokens < right.tokens:
            share = math.log(tokens / left.tokens) / math.log(right.tokens / left.tokens)
            return left.accuracy.value + share * (right.accuracy.value - left.accuracy.value)
    return None


def tokens_to_reach(curve: Sequence[MethodResult], accuracy: float) -> float | None:
    """The fewest tokens per problem at which a method reaches ``accuracy``, interpolated as above.

    Returns:
        The cheapest point's tokens where that is accurate enough already (the true number may be lower); ``None``
        where no measured point is.
    """
    points = sorted(curve, key=lambda result: result.tokens)
    for index, right in enumerate(points):
        if right.accuracy.value < accuracy:
            continue
        if index == 0:
            return right.tokens
        left = points[index - 1]
        share = (accuracy - left.accuracy.value) / (right.accuracy.value - left.accuracy.value)
        return left.tokens * math.exp(share * math.log(right.tokens / left.tokens))
    return None


def equal_accuracy(search: Sequence[MethodResult]) -> list[dict[str, Any]]:
    """For every guided search, what best-of-n under the same scorer pays for the same accuracy.

    ``best_of_n_tokens`` is interpolated between measured ``n``; it is ``None`` where no measured ``n`` reaches the
    accuracy: then ``reached`` is the best accuracy that one did, with ``reached_tokens``.
    """
    curve = [result for result in search if result.method in {"best of n", "sampling"}]
    rows = []
    for result in search:
        sampled = result.method in {"sampling", "majority", "weighted majority", "best of n"}
        if sampled or result.scorer == "none" or not curve:
            continue
        needed = tokens_to_reach(curve, result.accuracy.value)
        most = max(curve, key=lambda point: point.accuracy.value)
        rows.append(
            {
                "method": result.method,
                "settings": dict(result.settings),
                "accuracy": result.accuracy.value,
                "tokens": result.tokens,
                "best_of_n_tokens": needed,
                "ratio": None if not needed else result.tokens / needed,
                "reached": most.accuracy.value,
                "reached_tokens": most.tokens,
            }
        )
    return rows
