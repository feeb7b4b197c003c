"""Intervals by resampling problems (Efron, 1979): problems, not samples, are what a benchmark drew at random."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradatim.errors import GradatimError

FEW_PROBLEMS = 20  # of fewer, intervals by resampling are too narrow to be relied on: exact counts say more
_CHUNK = 2_000_000  # numbers held at once, so that memory does not grow with the number of problems
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; all numbers are finite.

    Attributes:
        value: the figure over all problems.
        low: lower end of the percentile interval; ``None`` where a single problem has no interval.
        high: upper end; ``None`` without an interval, and where a ratio has no upper bound (in some resampled sets
            nothing was solved).
        n: problems it rests on.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def few(self) -> bool:
        """Whether it rests on so few problems that the interval says little."""
        return self.n < FEW_PROBLEMS

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Estimate:
        """Restore an estimate from :meth:`to_json`'s object."""
        return cls(value["value"], value["low"], value["high"], value["n"])

    def fields(self, name: str) -> dict[str, Any]:
        """The estimate as flat report keys: ``name`` and ``name_interval`` (``None`` where there is none)."""
        return {name: self.value, f"{name}_interval": None if self.low is None else [self.low, self.high]}

    @classmethod
    def from_fields(cls, values: Mapping[str, Any], name: str, n: int) -> Estimate:
        """Restore an estimate of ``n`` problems from :meth:`fields`' keys."""
        low, high = values[f"{name}_interval"] or (None, None)
        return cls(values[name], low, high, n)

    def __format__(self, spec: str) -> str:
        spec = spec or ".3f"
        if self.low is None:
            return f"{self.value:{spec}}"
        high = "unbounded" if self.high is None else f"{self.high:{spec}}"
        return f"{self.value:{spec}} [{self.low:{spec}}, {high}]"


def bootstrap_mean(
    values: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean of one value per problem, with a percentile bootstrap interval.

    Args:
        values: ``[problems]``.
        confidence: share of the resampled means that the interval holds.
        resamples: how many resampled sets of problems.
        seed: the same seed gives the same interval.

    Raises:
        GradatimError: if there are no problems.
    """
    array = _rows(values)
    means = np.concatenate([array[indices].mean(axis=1) for indices in _resampled(len(array), resamples, seed)])
    return _estimate(float(array.mean()), means, confidence, len(array))


def bootstrap_difference(
    first: npt.ArrayLike, second: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean of ``second - first`` with its interval, paired: both have one value for each of the same problems.

    Raises:
        GradatimError: if there are no problems, or not the same number of both.
    """
    before, after = _rows(first), _rows(second)
    if before.shape != after.shape:
        raise GradatimError(f"cannot pair {len(before)} problems with {len(after)}; evaluate both on the same problems")
    return bootstrap_mean(after - before, confidence=confidence, resamples=resamples, seed=seed)


def bootstrap_ratio(
    numerators: npt.ArrayLike,
    denominators: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Ratio of two sums over problems (tokens per solved problem), with its interval.

    Args:
        numerators: ``[problems]``.
        denominators: ``[problems]``, none negative and not all 0.

    Raises:
        GradatimError: if there are no problems, not the same number of both, or nothing to divide by.
    """
    above, below = _rows(numerators), _rows(denominators)
    if above.shape != below.shape:
        raise GradatimError(f"cannot divide {len(above)} problems by {len(below)}; give both for the same problems")
    sums = [
        (above[indices].sum(axis=1), below[indices].sum(axis=1)) for indices in _resampled(len(above), resamples, seed)
    ]
    if not below.any():
        raise GradatimError("a ratio needs something to divide by, but all denominators are 0; say that there is none")
    ratios = np.concatenate([_divide(top, bottom) for top, bottom in sums])
    return _estimate(float(above.sum() / below.sum()), ratios, confidence, len(above))


def bootstrap_statistic(
    statistic: Callable[[Indices], float | None],
    problems: int,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate | None:
    """Any statistic of a set of problems, with its interval; slower than the special cases above.

    Args:
        statistic: computes the figure from problem indices ``[problems]``, in which problems recur; ``None`` where it
            is undefined. Resampled sets for which it is undefined are left out.
        problems: how many problems there are.

    Returns:
        ``None`` where the statistic is undefined for all problems together.
    """
    value = statistic(np.arange(problems))
    if value is None:
        return None
    figures = [
        figure
        for indices in _resampled(problems, resamples, seed)
        for figure in (statistic(row) for row in indices)
        if figure is not None
    ]
    return _estimate(value, np.array(figures or [value]), confidence, problems)


def _rows(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected one value per problem, got shape {array.shape}")
    return array


def _resampled(problems: int, resamples: int, seed: int) -> Iterator[Indices]:
    """``resamples`` rows of ``problems`` indices drawn with replacement, in chunks ``[rows, problems]``."""
    if not problems:
        raise GradatimError("there are no problems to evaluate; give at least one")
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // problems)
    for start in range(0, resamples, rows):
        yield generator.integers(problems, size=(min(rows, resamples - start), problems))


def _divide(above: npt.ArrayLike, below: npt.ArrayLike) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.equal(below, 0), np.inf, np.divide(above, below))


def _estimate(value: float, figures: npt.NDArray[np.float64], confidence: float, problems: int) -> Estimate:
    if problems < 2:  # all resampled sets are the same
        return Estimate(value, None, None, problems)
    # of two neighbouring figures the outer one, so that the ends are figures that occurred (infinite ones included)
    low = float(np.quantile(figures, (1 - confidence) / 2, method="lower"))
    high = float(np.quantile(figures, (1 + confidence) / 2, method="higher"))
    return Estimate(value, low, high if math.isfinite(high) else None, problems)
