"""Accuracy of answers and of step scores: pure functions of rewards, answers, scores and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from gradatim.errors import GradatimError
from gradatim.proportions import check_subset
from gradatim.tree import is_right

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled solution of a problem.

    Attributes:
        reward: the verifier's reward.
        answer: the extracted answer; ``None`` where there is none, which is never voted for.
        score: the scorer's number for the whole solution; selection by score prefers higher ones.
        correct: whether the solution is right, which is what all metrics count; where it is not said, whether the
            reward is above one half.
    """

    reward: float
    answer: str | None
    score: float = 0.0
    correct: bool | None = None

    def __post_init__(self) -> None:
        if self.correct is None:
            object.__setattr__(self, "correct", is_right(self.reward))


def best_of_n(samples: Sequence[Sample], n: int) -> float:
    """Chance that the highest-scored of ``n`` solutions drawn without replacement is right; ties are drawn by lot.

    Exact: a group of equal scores with ``lower`` solutions below it wins if the subset lies within the group and
    those below, but not wholly below.

    Raises:
        GradatimError: unless ``1 <= n <= len(samples)``.
    """
    check_subset(len(samples), n)
    right: dict[float, list[bool]] = {}
    for sample in samples:
        right.setdefault(sample.score, []).append(bool(sample.correct))
    subsets = math.comb(len(samples), n)
    expected, lower = 0.0, 0
    for score in sorted(right):
        group = right[score]
        wins = math.comb(lower + len(group), n) - math.comb(lower, n)
        expected += wins / subsets * (sum(group) / len(group))
        lower += len(group)
    return expected


def majority(samples: Sequence[Sample], n: int, *, resamples: int = 1000, seed: int = 0) -> float:
    """Chance that the most frequent answer is right among ``n`` solutions drawn without replacement.

    Self-consistency (Wang et al., 2022, arXiv:2203.11171). Ties between answers are averaged over; a subset without
    any answer earns nothing. Exact where there are at most ``resamples`` subsets, otherwise the mean over that many
    random ones.

    Raises:
        GradatimError: unless ``1 <= n <= len(samples)``.
    """
    return _vote(samples, np.ones(len(samples)), n, resamples, seed)


def weighted_majority(samples: Sequence[Sample], n: int, *, resamples: int = 1000, seed: int = 0) -> float:
    """As :func:`majority`, with each solution's vote weighted by its score.

    Scores must not be negative; an unscored solution (minus infinity) weighs nothing.

    Raises:
        GradatimError: unless ``1 <= n <= len(samples)``, or if a score is negative.
    """
    weights = np.array([sample.score for sample in samples], dtype=np.float64)
    weights[np.isneginf(weights)] = 0.0
    if not (weights >= 0).all():
        raise GradatimError("score-weighted majority needs scores of 0 or more; use a scorer that gives probabilities")
    return _vote(samples, weights, n, resamples, seed)


def best_of_majority(
    samples: Sequence[Sample], n: int, *, frequent: float = 0.1, resamples: int = 1000, seed: int = 0
) -> float:
    """Chance that the highest-scored solution of a frequent answer is right among ``n`` drawn without replacement.

    See :func:`gradatim.search.choosing.best_of_majority`. Of equal scores the first counts. Exact where there are at
    most ``resamples`` subsets, otherwise the mean over that many random ones.

    Args:
        samples: of one problem.
        n: how many are drawn.
        frequent: the share of all votes that an answer needs.
        resamples, seed: of random subsets.

    Raises:
        GradatimError: unless ``1 <= n <= len(samples)``.
    """
    check_subset(len(samples), n)
    answers = sorted({sample.answer for sample in samples if sample.answer is not None})
    ballot = np.array([[sample.answer == answer for answer in answers] for sample in samples], dtype=np.float64)
    if not answers:
        return 0.0
    chosen = _subsets(len(samples), n, resamples, seed)
    votes = chosen @ ballot  # [subsets, answers]
    needed = np.minimum(frequent * votes.sum(axis=1), votes.max(axis=1))
    is_frequent = (votes >= needed[:, None]) & (votes > 0)
    eligible = (chosen > 0) & (is_frequent @ ballot.T > 0)  # [subsets, samples]
    lowest = np.finfo(np.float64).min  # unscored solutions (minus infinity) rank below all others, but are eligible
    scores = np.where(eligible, np.maximum([sample.score for sample in samples], lowest), -np.inf)
    right = np.array([bool(sample.correct) for sample in samples])
    return float((right[scores.argmax(axis=1)] & eligible.any(axis=1)).mean())


def _vote(samples: Sequence[Sample], weights: FloatArray, n: int, resamples: int, seed: int) -> float:
    check_subset(len(samples), n)
    answers = sorted({sample.answer for sample in samples if sample.answer is not None})
    if not answers:
        return 0.0
    ballot = np.zeros((len(samples), len(answers)))  # [samples, answers]: one vote each
    right = np.zeros(len(answers))
    for row, sample in enumerate(samples):
        if sample.answer is not None:
            column = answers.index(sample.answer)
            ballot[row, column] = 1.0
            right[column] += bool(sample.correct)
    rewards = right / ballot.sum(axis=0)  # equal answers are all right or all wrong but for what a verifier sees beside
    chosen = _subsets(len(samples), n, resamples, seed)
    voted = chosen @ ballot > 0  # [subsets, answers]; an answer of weight 0 may still win among its like
    votes = np.where(voted, chosen @ (ballot * weights[:, None]), -1.0)
    best = votes.max(axis=1, keepdims=True)
    winners = voted & np.isclose(votes, best, rtol=1e-9, atol=0.0)  # sums of equal weights in another order tie too
    counts = winners.sum(axis=1)
    earned = np.divide(winners @ rewards, counts, out=np.zeros(len(chosen)), where=counts > 0)
    return float(earned.mean())


def _subsets(total: int, n: int, resamples: int, seed: int) -> FloatArray:
    """Subsets of ``n`` of ``total``, ``[subsets, total]`` of zeros and ones: all if they are few, else random ones."""
    if math.comb(total, n) <= resamples:
        members = np.array(list(combinations(range(total), n)), dtype=np.intp)
    else:
        members = np.random.default_rng(seed).random((resamples, total)).argsort(axis=1)[:, :n]
    chosen = np.zeros((len(members), total))
    np.put_along_axis(chosen, members, 1.0, axis=1)
    return chosen


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a good state scores above a bad one, ties counting half.

    By mean ranks (Mann-Whitney), in O(n log n).

    Args:
        labels: ``[n]``, true for good.
        scores: ``[n]``.

    Returns:
        ``None`` where all labels are equal, since there is nothing to tell apart.
    """
    good, values = _labelled(labels, scores)
    positives = int(good.sum())
    negatives = len(good) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last_rank = counts.cumsum()
    mean_rank = last_rank - (counts - 1) / 2
    rank_sum = float(mean_rank[inverse][good].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def accuracy_at(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float) -> float:
    """Share of states that are judged rightly when a score of at least ``threshold`` means good."""
    good, values = _labelled(labels, scores)
    return float(((values >= threshold) == good).mean())


def best_threshold(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[float, float]:
    """The threshold of the highest :func:`accuracy_at` and that accuracy; of equals, the lowest threshold.

    Choose it on other states than those on which it is reported. ``inf`` means that calling all states bad is best.
    """
    good, values = _labelled(labels, scores)
    order = values.argsort(kind="stable")
    values, good = values[order], good[order]
    # with the threshold at the i-th score, the i states below are called bad
    right = np.concatenate([[0], (~good).cumsum()]) + np.concatenate([good[::-1].cumsum()[::-1], [0]])
    is_cut = np.concatenate([[True], values[1:] != values[:-1], [True]])
    best = int(np.where(is_cut, right, -1).argmax())
    return (float(values[best]) if best < len(values) else math.inf), float(right[best] / len(values))


def _labelled(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    good = np.asarray(labels, dtype=bool)
    values = np.asarray(scores, dtype=np.float64)
    if good.ndim != 1 or good.shape != values.shape:
        raise ValueError(f"labels {good.shape} and scores {values.shape} must be two rows of equal length")
    if not len(good):
        raise GradatimError("there are no scored states to judge; score some steps first")
    if np.isnan(values).any():
        raise GradatimError("a step score is not a number; the scorer has diverged, train it again at a lower rate")
    return good, values


@dataclass(frozen=True, slots=True)
class FirstErrorScore:
    """How well the first wrong step is found (ProcessBench; Zheng et al., 2024, arXiv:2412.06559).

    Attributes:
        f1: harmonic mean of the two accuracies; ``None`` where one of them is missing.
        error_accuracy: share of the wrong solutions whose first wrong step was named exactly; ``None`` without any.
        correct_accuracy: share of the solutions without an error of which no error was reported; ``None`` without any.
        solutions: how many solutions were judged.
    """

    f1: float | None
    error_accuracy: float | None
    correct_accuracy: float | None
    solutions: int

    def to_json(self) -> dict[str, float | None]:
        return {
            "f1": self.f1,
            "error_accuracy": self.error_accuracy,
            "correct_accuracy": self.correct_accuracy,
            "solutions": self.solutions,
        }


def first_error_f1(predicted: Sequence[int | None], truth: Sequence[int | None]) -> FirstErrorScore:
    """Compare predicted with true first-error indices, one per solution; ``None`` means no error.

    Where both accuracies are 0 their harmonic mean is 0.
    """
    pairs = list(zip(predicted, truth, strict=True))
    error = _share_true([guess == true for guess, true in pairs if true is not None])
    correct = _share_true([guess is None for guess, true in pairs if true is None])
    f1 = None
    if error is not None and correct is not None:
        f1 = 2 * error * correct / (error + correct) if error + correct else 0.0
    return FirstErrorScore(f1, error, correct, len(pairs))


def _share_true(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def first_below(scores: Sequence[float], threshold: float) -> int | None:
    """Index of the first step scored below ``threshold``: the predicted first error."""
    return next((index for index, score in enumerate(scores) if score < threshold), None)
