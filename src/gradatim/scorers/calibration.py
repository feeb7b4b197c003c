"""What scores mean as probabilities: maps that are fitted to scores with labels, and kept in small files.

Calibration changes no ranking within one scorer; it matters where scores are multiplied along a path, mixed with those
of another scorer, or compared with a threshold.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

import numpy as np
import numpy.typing as npt

from gradatim.errors import GradatimError
from gradatim.scorers.aggregation import log_odds
from gradatim.store.files import file_error, write_json

Method = Literal["platt", "isotonic"]
Scale = Literal["scores", "logits"]
FloatArray = npt.NDArray[np.float64]

_ITERATIONS = 100
_STEEPEST = 1e-9  # of the loss per pair, where its minimum is taken to be reached
_RIDGE = 1e-12  # keeps the Newton step finite where all scores are one


@dataclass(frozen=True, slots=True)
class Platt:
    """A logistic curve, ``sigmoid(slope * score + intercept)`` (Platt, 1999).

    Attributes:
        slope, intercept: of the curve.
        on: whether it is over the scores, or over their logits (for scores that are probabilities; slope 1 and
            intercept 0 then change nothing, and the slope is one over the temperature of Guo et al., 2017,
            arXiv:1706.04599).
    """

    slope: float
    intercept: float
    on: Scale = "logits"

    def __call__(self, score: float) -> float:
        """The probability; :class:`GradatimError` if the score has no logit and should have one."""
        return _sigmoid(self.slope * (log_odds(score) if self.on == "logits" else score) + self.intercept)


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A monotone curve through points, straight between them and level outside (Zadrozny and Elkan, 2002).

    Attributes:
        scores: ascending.
        values: the probabilities there, ascending, too.
    """

    scores: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, score: float) -> float:
        """The probability."""
        place = bisect_right(self.scores, score)
        if place == 0 or place == len(self.scores):
            return self.values[max(place - 1, 0)]
        (left, right), (low, high) = self.scores[place - 1 : place + 1], self.values[place - 1 : place + 1]
        return low + (high - low) * (score - left) / (right - left)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted map from scores to probabilities.

    Attributes:
        curve: the map.
        pairs: how many scores with labels it was fitted to.
        left_out: how many were left out, since the score or the label was missing or no number.
        of: what the scores and labels were, for people.
    """

    curve: Platt | Isotonic
    pairs: int
    left_out: int
    of: str = ""

    def __call__(self, score: float) -> float:
        """The probability that a step of this score is right."""
        return self.curve(score)

    def write(self, path: Path) -> None:
        """Keep it as a JSON file; :class:`GradatimError` if it cannot be written."""
        write_json(path, {"method": type(self.curve).__name__.lower(), **asdict(self)})


def read_calibration(path: str | Path) -> Calibration:
    """The calibration that :meth:`Calibration.write` wrote.

    Raises:
        GradatimError: if the file is not there or no calibration.
    """
    try:
        value: dict[str, Any] = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        made: Any = {"platt": Platt, "isotonic": _isotonic}[value["method"]]
        curve = made(**value["curve"])
        if not math.isfinite(curve(0.5)) or getattr(curve, "on", "scores") not in get_args(Scale):
            raise ValueError("a curve gives probabilities")
        return Calibration(curve, int(value["pairs"]), int(value["left_out"]), str(value["of"]))
    except OSError as error:
        raise file_error(path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise GradatimError(f"{str(path)!r} is no calibration; make one with 'gradatim calibrate'") from error


def fit(
    scores: Sequence[float | None],
    labels: Sequence[float | None],
    method: Method = "isotonic",
    *,
    on: Scale | None = None,
    of: str = "",
) -> Calibration:
    """Fit a calibration to scores and labels; pairs of which either is missing or no number are counted and left out.

    Args:
        scores: of steps; ``None`` where there is none.
        labels: between 0 and 1: whether the step is right, or how likely it is (a value from rollouts).
        method: ``"platt"`` needs few pairs and has two parameters, ``"isotonic"`` takes any monotone shape.
        on: of Platt's curve; by default the logits where all scores are probabilities.
        of: what the pairs are, for people.

    Raises:
        GradatimError: if a label is not between 0 and 1, or all labels are alike, so that there is nothing to fit.
    """
    pairs = [(score, label) for score, label in zip(scores, labels, strict=True) if _known(score) and _known(label)]
    left_out = len(scores) - len(pairs)
    x, y = (np.array([pair[side] for pair in pairs], dtype=np.float64) for side in (0, 1))
    if len(x) and not (y.min() >= 0 and y.max() <= 1):
        raise GradatimError(f"labels lie between {y.min():g} and {y.max():g}; calibrate to labels between 0 and 1")
    if not len(x) or y.min() == y.max():
        alike = f"all {len(x):,} labels are {y[0]:g}" if len(x) else "no score has a label"
        raise GradatimError(f"there is nothing to calibrate: {alike} ({left_out:,} pairs left out); name other trees")
    curve = fit_isotonic(x, y) if method == "isotonic" else fit_platt(x, y, on)
    return Calibration(curve, len(x), left_out, of)


def cross_fitted(
    scores: Sequence[float | None],
    labels: Sequence[float | None],
    groups: Sequence[int],
    method: Method = "isotonic",
    *,
    on: Scale | None = None,
) -> list[float | None]:
    """What each score means by a calibration that was fitted to others: those of even groups by one that was fitted to
    odd ones, and the other way round. Arguments and errors as for :func:`fit`; a group is what belongs together, such
    as all steps of a problem."""
    found: list[float | None] = [None] * len(scores)
    for half in (0, 1):
        others = [place for place, group in enumerate(groups) if group % 2 != half]
        calibration = fit([scores[place] for place in others], [labels[place] for place in others], method, on=on)
        for place, (score, group) in enumerate(zip(scores, groups, strict=True)):
            if group % 2 == half and score is not None and _known(score):
                found[place] = calibration(score)
    return found


def fit_platt(scores: FloatArray, labels: FloatArray, on: Scale | None = None) -> Platt:
    """The logistic curve of the least cross-entropy, by Newton's method.

    As in Platt's paper labels are drawn towards one half by one pseudo-count each, so that the curve stays finite
    where scores divide right from wrong.
    """
    if on is None:
        on = "logits" if scores.min() >= 0 and scores.max() <= 1 else "scores"
    x = np.array([log_odds(score) for score in scores]) if on == "logits" else scores
    centre, spread = float(x.mean()), float(x.std()) or 1.0
    z, targets = (x - centre) / spread, smoothed(labels)
    parameters = np.array([0.0, log_odds(float(targets.mean()))])
    design = np.stack([z, np.ones_like(z)])
    for _ in range(_ITERATIONS):
        p = _sigmoids(parameters @ design)
        gradient = design @ (p - targets) / len(z)
        if np.abs(gradient).max() < _STEEPEST:
            break
        hessian = (design * (p * (1 - p))) @ design.T / len(z) + _RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while _loss(parameters - step, design, targets) > _loss(parameters, design, targets) and np.abs(step).max() > 0:
            step = step / 2
        parameters = parameters - step
    slope = float(parameters[0]) / spread
    return Platt(slope, float(parameters[1]) - slope * centre, on)


def fit_isotonic(scores: FloatArray, labels: FloatArray) -> Isotonic:
    """The monotone curve of the least squares, by pooling adjacent violators; equal scores have one value."""
    points, where = np.unique(scores, return_inverse=True)
    weights = np.bincount(where).astype(np.float64)
    sums = np.bincount(where, weights=labels)
    blocks: list[list[float]] = []  # sum of labels, weight, first score, last score
    for total, weight, point in zip(sums, weights, points, strict=True):
        blocks.append([total, weight, point, point])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            later = blocks.pop()
            before = blocks[-1]
            blocks[-1] = [before[0] + later[0], before[1] + later[1], before[2], later[3]]
    ends = [(at, total / weight) for total, weight, *both in blocks for at in dict.fromkeys(both)]
    return Isotonic(tuple(float(at) for at, _ in ends), tuple(float(value) for _, value in ends))


def smoothed(labels: FloatArray) -> FloatArray:
    """Labels as Platt aims at them: 1 becomes ``(n1 + 1) / (n1 + 2)`` and 0 becomes ``1 / (n0 + 2)``, where ``n1`` and
    ``n0`` are how many there are of each; what lies between lies between."""
    right = float(labels.sum())
    wrong = len(labels) - right
    return labels * (right + 1) / (right + 2) + (1 - labels) / (wrong + 2)


def brier(scores: Sequence[float | None], labels: Sequence[float | None]) -> float:
    """The mean squared difference between probabilities and labels, of those that have both."""
    pairs = zip(scores, labels, strict=True)
    apart = [(score - label) ** 2 for score, label in pairs if score is not None and label is not None]
    return math.fsum(apart) / len(apart)


def _isotonic(scores: Sequence[float], values: Sequence[float]) -> Isotonic:
    curve = Isotonic(tuple(map(float, scores)), tuple(map(float, values)))
    ascends = all(left < right for left, right in pairwise(curve.scores))
    if not curve.scores or len(curve.scores) != len(curve.values) or not ascends:
        raise ValueError("the points of a curve must ascend")
    if not all(map(math.isfinite, curve.scores)) or not all(0 <= value <= 1 for value in curve.values):
        raise ValueError("a curve gives probabilities")
    return curve


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _loss(parameters: FloatArray, design: FloatArray, targets: FloatArray) -> float:
    logits = parameters @ design
    return float((np.logaddexp(0.0, logits) - targets * logits).mean())


def _sigmoids(logits: FloatArray) -> FloatArray:
    found: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return found


def _sigmoid(logit: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * logit))
