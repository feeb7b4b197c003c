"""How well step scores agree with labels of held-out steps, and how well one constant score does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradatim.evaluation.benchmarks.process_bench import best_f1_threshold
from gradatim.evaluation.bootstrap import Estimate, bootstrap_ratio, bootstrap_share, bootstrap_statistic, clustered_auc
from gradatim.evaluation.metrics import best_threshold, first_below, first_error_f1

_SMALLEST = 1e-12  # a score of exactly 0 or 1 that is wrong would make the loss infinite
_UNDECIDED = 0.5  # the threshold where nothing tells of a better one


@dataclass(frozen=True, slots=True)
class JudgedQuestion:
    """The held-out steps of one question.

    Attributes:
        labels: ``[steps]``, from 0 to 1; a step is right if its label is above 0.5.
        scores: ``[steps]``, probabilities.
        solutions: the steps of each solution, as places in the above. It is known of each where it first goes wrong,
            or that it is right to its end.
    """

    labels: tuple[float, ...]
    scores: tuple[float, ...]
    solutions: tuple[tuple[int, ...], ...] = ()

    def right(self) -> list[bool]:
        return [label > 0.5 for label in self.labels]

    def solution_scores(self) -> list[list[float]]:
        return [[self.scores[place] for place in solution] for solution in self.solutions]

    def first_errors(self) -> list[int | None]:
        right = self.right()
        return [
            next((index for index, place in enumerate(solution) if not right[place]), None)
            for solution in self.solutions
        ]


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """What was measured, each with its interval over questions.

    The thresholds with which steps are judged are chosen on one half of the questions for the other, so that no step
    is judged by a threshold that its own label helped to choose.

    Attributes:
        loss: mean binary cross-entropy, in nats a step.
        auc: area under the ROC curve; ``None`` where all steps are right or all wrong.
        accuracy: share of steps judged rightly.
        first_error_f1: harmonic mean of the share of wrong solutions whose first wrong step is found and the share of
            right ones in which none is; ``None`` where one kind of solution is missing.
        threshold: a score of at least this is best called right, by all questions together; ``None`` where calling
            every step alike is best.
        first_error_threshold: the same for finding first errors; ``None`` where there is no F1, or calling every first
            step wrong is best.
        questions: how many there are.
        steps: how many there are.
        solutions: how many there are, and how many of them have an error.
    """

    loss: Estimate
    auc: Estimate | None
    accuracy: Estimate
    first_error_f1: Estimate | None
    threshold: float | None
    first_error_threshold: float | None
    questions: int
    steps: int
    solutions: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        estimates = {name: getattr(self, name) for name in _ESTIMATES}
        return {
            **{name: None if value is None else value.to_json() for name, value in estimates.items()},
            "threshold": self.threshold,
            "first_error_threshold": self.first_error_threshold,
            "questions": self.questions,
            "steps": self.steps,
            "solutions": list(self.solutions),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LabelQuality:
        estimates = {name: None if value[name] is None else Estimate(**value[name]) for name in _ESTIMATES}
        return cls(**{**value, **estimates, "solutions": tuple(value["solutions"])})


_ESTIMATES = ("loss", "auc", "accuracy", "first_error_f1")


def label_quality(questions: Sequence[JudgedQuestion], *, resamples: int = 1000, seed: int = 0) -> LabelQuality:
    """Measure the scores of held-out steps against their labels.

    Raises:
        GradatimError: if there are no steps, or a score is not a number.
    """
    labels, scores = _joined(questions)
    threshold = best_threshold(labels > 0.5, scores)[0]
    f1, f1_threshold = _first_error_f1(questions, resamples, seed)
    counts = [len(question.labels) for question in questions]
    right = [
        sum((score >= cut) == truth for score, truth in zip(question.scores, question.right(), strict=True))
        for question, cut in zip(questions, _crossed(questions, _accuracy_threshold), strict=True)
    ]
    errors = [error for question in questions for error in question.first_errors()]

    return LabelQuality(
        loss=bootstrap_ratio([_loss(question) for question in questions], counts, seed=seed),
        auc=clustered_auc(
            [(np.asarray(each.labels) > 0.5, each.scores) for each in questions], resamples=resamples, seed=seed
        ),
        accuracy=bootstrap_share(right, counts, seed=seed),
        first_error_f1=f1,
        threshold=threshold if _tells_apart(threshold, scores) else None,
        first_error_threshold=f1_threshold,
        questions=len(questions),
        steps=sum(counts),
        solutions=(len(errors), sum(error is not None for error in errors)),
    )


def constant_quality(
    questions: Sequence[JudgedQuestion], score: float, *, resamples: int = 1000, seed: int = 0
) -> LabelQuality:
    """The same for one score for every step: what a scorer must beat. With the mean of the labels that were learned
    from, no constant has a lower loss; every step is called what most steps are."""
    constant = [replace(question, scores=(score,) * len(question.scores)) for question in questions]
    return label_quality(constant, resamples=resamples, seed=seed)


def _loss(question: JudgedQuestion) -> float:
    """The sum over the steps of a question."""
    probabilities = np.clip(question.scores, _SMALLEST, 1 - _SMALLEST)
    targets = np.asarray(question.labels)
    return float(-(targets * np.log(probabilities) + (1 - targets) * np.log1p(-probabilities)).sum())


def _joined(questions: Sequence[JudgedQuestion]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    labels = np.array([label for question in questions for label in question.labels], dtype=np.float64)
    return labels, np.array([score for question in questions for score in question.scores], dtype=np.float64)


def _tells_apart(threshold: float, scores: npt.NDArray[np.float64]) -> bool:
    return math.isfinite(threshold) and bool((scores < threshold).any())


def _accuracy_threshold(questions: Sequence[JudgedQuestion]) -> float:
    labels, scores = _joined(questions)
    return best_threshold(labels > 0.5, scores)[0]


def _f1_threshold(questions: Sequence[JudgedQuestion]) -> float:
    scores = [values for question in questions for values in question.solution_scores()]
    errors = [error for question in questions for error in question.first_errors()]
    return best_f1_threshold(scores, errors) if scores else _UNDECIDED


def _crossed(questions: Sequence[JudgedQuestion], choose: Callable[[Sequence[JudgedQuestion]], float]) -> list[float]:
    """For each question a threshold that the other half of the questions chose; 0.5 where there is no other half."""
    halves = questions[0::2], questions[1::2]
    chosen = [choose(half) if half else _UNDECIDED for half in halves]
    return [chosen[1 - place % 2] for place in range(len(questions))]


def _first_error_f1(
    questions: Sequence[JudgedQuestion], resamples: int, seed: int
) -> tuple[Estimate | None, float | None]:
    """The F1 of first errors, and the threshold that is best for it."""
    truth = [question.first_errors() for question in questions]
    kinds = {error is None for errors in truth for error in errors}
    if len(kinds) < 2:
        return None, None
    guesses = [
        [first_below(scores, cut) for scores in question.solution_scores()]
        for question, cut in zip(questions, _crossed(questions, _f1_threshold), strict=True)
    ]

    def f1_of(indices: npt.NDArray[np.intp]) -> float | None:
        true = [error for index in indices for error in truth[index]]
        guessed = [guess for index in indices for guess in guesses[index]]
        return first_error_f1(guessed, true).f1

    best = _f1_threshold(questions)
    scores = np.array([score for question in questions for row in question.solution_scores() for score in row])
    estimate = bootstrap_statistic(f1_of, len(questions), resamples=resamples, seed=seed)
    return estimate, best if _tells_apart(best, scores) else None
