"""Intervals over problems: problems, not samples, are what a benchmark drew at random.

Intervals come from resampling problems (Efron, 1979), but for shares where resampling knows too little. Outcomes that
are all 0 or 1 have the Wilson (1927) interval of a proportion. A mean of shares (of several samples a problem) with
fewer than ten problems that are not all wrong, or not all right, has that interval too: such a sample does not show how
far problems differ, and shares of a given mean differ most where all are 0 or 1. The difference of two shares with
fewer than ten problems that differ has the interval of Agresti and Min (2005) for matched pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from gradatim.errors import GradatimError
from gradatim.evaluation.metrics import auc
from gradatim.proportions import wilson_interval

FEW_PROBLEMS = 20  # of fewer, intervals by resampling are too narrow to be relied on: exact counts say more
_ENOUGH = 10  # problems that stand out: of fewer, resampling makes intervals that are too narrow, or of no width
_CHUNK = 2_000_000  # numbers held at once, so that memory does not grow with the number of problems
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; all numbers are finite.

    Attributes:
        value: the figure over all problems.
        low: lower end of the interval; ``None`` where a single problem has no interval.
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
    """Mean of one value per problem, with its interval.

    Values that all lie from 0 to 1 are taken for shares: see :mod:`gradatim.evaluation.bootstrap`.

    Args:
        values: ``[problems]``.
        confidence: in how many of so made intervals the true mean lies.
        resamples: how many resampled sets of problems.
        seed: the same seed gives the same interval.

    Raises:
        GradatimError: if there are no problems.
    """
    array = _rows(values)
    if _are_shares(array) and (np.isin(array, (0.0, 1.0)).all() or _outstanding(array, 1.0 - array) < _ENOUGH):
        return _wilson(float(array.mean()), len(array), confidence)
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
    change = after - before
    if _are_shares(before) and _are_shares(after) and np.count_nonzero(change) < _ENOUGH:
        return _agresti_min(change, confidence)
    means = np.concatenate([change[indices].mean(axis=1) for indices in _resampled(len(change), resamples, seed)])
    return _estimate(float(change.mean()), means, confidence, len(change))


def bootstrap_share(
    parts: npt.ArrayLike, wholes: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """A share of what problems consist of (the steps that are judged rightly), with its interval over problems.

    Args:
        parts: ``[problems]``, how many of each problem are meant.
        wholes: ``[problems]``, how many each has; none negative and not all 0.

    Raises:
        GradatimError: as :func:`bootstrap_ratio`.
    """
    some, every = _rows(parts), _rows(wholes)
    estimate = bootstrap_ratio(some, every, confidence=confidence, resamples=resamples, seed=seed)
    counted = every > 0
    if _outstanding(some[counted], (every - some)[counted]) < _ENOUGH:
        return _wilson(estimate.value, len(some), confidence)
    return estimate


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


Cluster = tuple[Sequence[Any] | npt.NDArray[Any], Sequence[Any] | npt.NDArray[Any]]
"""The labels and the scores of what belongs to one problem."""


def clustered_auc(
    clusters: Sequence[Cluster], *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Estimate | None:
    """AUC over everything, its interval by resampling problems.

    Returns:
        ``None`` where all labels are alike.
    """
    pairs = [(np.asarray(labels, dtype=bool), np.asarray(scores, dtype=float)) for labels, scores in clusters]
    groups = [pair for pair in pairs if len(pair[0])]

    def of(indices: Indices) -> float | None:
        return auc(np.concatenate([groups[i][0] for i in indices]), np.concatenate([groups[i][1] for i in indices]))

    if not groups:
        return None
    return bootstrap_statistic(of, len(groups), resamples=resamples, seed=seed, confidence=confidence)


def named_aucs(
    judged: Iterable[tuple[str, str, bool, float]], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate | None]:
    """The AUC of everything that has a name, for each name; see :func:`clustered_auc`.

    Args:
        judged: name, problem, label and score of each item; an item that counts for several names comes several times.
    """
    found: dict[str, dict[str, tuple[list[bool], list[float]]]] = {}
    for name, problem, label, score in judged:
        labels, scores = found.setdefault(name, {}).setdefault(problem, ([], []))
        labels.append(label)
        scores.append(score)
    return {name: clustered_auc(list(part.values()), resamples=resamples, seed=seed) for name, part in found.items()}


def _are_shares(values: npt.NDArray[np.float64]) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _outstanding(right: npt.NDArray[np.float64], wrong: npt.NDArray[np.float64]) -> int:
    """How many problems are not wholly wrong, or not wholly right, whichever are fewer."""
    return min(int(np.count_nonzero(right)), int(np.count_nonzero(wrong)))


def _wilson(share: float, problems: int, confidence: float) -> Estimate:
    """A proportion of independent problems."""
    if problems < 2:
        return Estimate(share, None, None, problems)
    return Estimate(share, *wilson_interval(share, problems, confidence), problems)


def _agresti_min(differences: npt.NDArray[np.float64], confidence: float) -> Estimate:
    """Differences of matched shares, with two more pairs of which one differs by a half each way."""
    problems = len(differences)
    value = float(differences.mean())
    if problems < 2:
        return Estimate(value, None, None, problems)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    total = float(differences.sum())
    variance = (float((differences**2).sum()) + 1 - total**2 / (problems + 2)) / (problems + 2) ** 2
    centre, spread = total / (problems + 2), z * math.sqrt(variance)
    return Estimate(value, min(max(centre - spread, -1.0), value), max(min(centre + spread, 1.0), value), problems)


def _rows(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected one value per problem, got shape {array.shape}")
    if not len(array):
        raise GradatimError("there are no problems to evaluate; give at least one")
    return array


def _resampled(problems: int, resamples: int, seed: int) -> Iterator[Indices]:
    """``resamples`` rows of ``problems`` indices drawn with replacement, in chunks ``[rows, problems]``."""
    # These are the sets that ``scipy.stats.bootstrap`` draws. It has no place for figures that are infinite or
    # undefined, warns of samples that are all alike and refuses a single problem: calling it takes more code than this.
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
