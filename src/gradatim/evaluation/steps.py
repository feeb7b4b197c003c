"""How good step scores are, measured against an oracle or human labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradatim.evaluation.bootstrap import Estimate, bootstrap_statistic
from gradatim.evaluation.metrics import (
    FirstErrorScore,
    accuracy_at,
    auc,
    best_threshold,
    first_below,
    first_error_f1,
)
from gradatim.tasks.base import Oracle
from gradatim.tree import Tree


@dataclass(frozen=True, slots=True)
class ScoredStates:
    """The scored partial solutions of one problem, and the truth about them.

    Attributes:
        labels: ``[states]``, whether a right continuation exists.
        scores: ``[states]``.
        solutions: for each whole solution, its steps' scores and the index of its first wrong step.
    """

    labels: tuple[bool, ...]
    scores: tuple[float, ...]
    solutions: tuple[tuple[tuple[float, ...], int | None], ...] = ()


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """States whose scores fall into one bin: how high they scored, and how many of them are good."""

    mean_score: float
    share_good: float
    count: int

    def to_json(self) -> dict[str, float]:
        return {"mean_score": self.mean_score, "share_good": self.share_good, "count": self.count}


@dataclass(frozen=True, slots=True)
class StepScoreResult:
    """Quality of a scorer's step scores.

    Attributes:
        scorer: its name.
        auc: area under the ROC curve over all states, interval over problems; ``None`` if all states are alike.
        threshold: a score of at least this is judged good.
        accuracy: share of states judged rightly at that threshold.
        share_good: share of good states: what judging without looking can reach (or one minus it).
        first_error: how well first wrong steps are found at that threshold; ``None`` without whole solutions.
        calibration: bins of equal width from score 0 to 1 that are not empty.
        states: number of states.
    """

    scorer: str
    auc: Estimate | None
    threshold: float
    accuracy: float
    share_good: float
    first_error: FirstErrorScore | None
    calibration: tuple[CalibrationBin, ...]
    states: int

    def to_json(self) -> dict[str, Any]:
        return {
            "scorer": self.scorer,
            "states": self.states,
            "problems": 0 if self.auc is None else self.auc.n,
            **({"auc": None, "auc_interval": None} if self.auc is None else self.auc.fields("auc")),
            "accuracy": self.accuracy,
            "threshold": self.threshold,
            "share_good": self.share_good,
            "first_error_f1": None if self.first_error is None else self.first_error.f1,
            "first_error": None if self.first_error is None else self.first_error.to_json(),
            "calibration": [part.to_json() for part in self.calibration],
        }


def scored_states(tree: Tree, oracle: Oracle, scorer: str) -> ScoredStates:
    """Every scored partial solution of ``tree`` (each once) and every wholly scored solution, with the truth.

    Partial solutions are the open nodes below the root; finished ones have nothing left to predict.
    """
    problem = tree.problem
    nodes = [node for node in tree.nodes[1:] if node.open and scorer in node.scores]
    solutions = []
    for leaf in tree.leaves():
        path = leaf.path()[1:]
        if leaf.finished and all(scorer in node.scores for node in path):
            texts = [node.step.text + node.step.observation_text for node in path]
            solutions.append((tuple(node.scores[scorer] for node in path), oracle.first_error(problem, texts)))
    return ScoredStates(
        labels=tuple(oracle.solvable(problem, node.text) for node in nodes),
        scores=tuple(node.scores[scorer] for node in nodes),
        solutions=tuple(solutions),
    )


def step_score_result(
    scorer: str,
    problems: Sequence[ScoredStates],
    *,
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> StepScoreResult:
    """Measure step scores over the states of many problems (see :class:`StepScoreResult`).

    Raises:
        GradatimError: if there are no states at all, or a score is not a number.
    """
    groups = [(np.array(states.labels, dtype=bool), np.array(states.scores)) for states in problems if states.scores]
    labels = _joined(part for part, _ in groups).astype(bool)
    scores = _joined(part for _, part in groups)
    accuracy = accuracy_at(labels, scores, threshold)
    solutions = [solution for states in problems for solution in states.solutions]

    def auc_of(indices: npt.NDArray[np.intp]) -> float | None:
        return auc(
            np.concatenate([groups[index][0] for index in indices]),
            np.concatenate([groups[index][1] for index in indices]),
        )

    return StepScoreResult(
        scorer=scorer,
        auc=bootstrap_statistic(auc_of, len(groups), resamples=resamples, seed=seed),
        threshold=threshold,
        accuracy=accuracy,
        share_good=float(labels.mean()),
        first_error=_first_error(solutions, threshold) if solutions else None,
        calibration=calibration_bins(labels, scores),
        states=len(labels),
    )


def choose_threshold(problems: Sequence[ScoredStates]) -> float:
    """The threshold of the highest accuracy over the states of (held-out) problems."""
    labels = [label for states in problems for label in states.labels]
    scores = [score for states in problems for score in states.scores]
    return best_threshold(labels, scores)[0]


def calibration_bins(labels: npt.ArrayLike, scores: npt.ArrayLike, bins: int = 10) -> tuple[CalibrationBin, ...]:
    """Bins of equal width over [0, 1] that hold at least one state; scores outside belong to the outermost bins."""
    good, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    place = np.clip((values * bins).astype(int), 0, bins - 1)
    return tuple(
        CalibrationBin(float(values[place == index].mean()), float(good[place == index].mean()), int(count))
        for index, count in enumerate(np.bincount(place, minlength=bins))
        if count
    )


def _first_error(solutions: Sequence[tuple[tuple[float, ...], int | None]], threshold: float) -> FirstErrorScore:
    return first_error_f1([first_below(scores, threshold) for scores, _ in solutions], [true for _, true in solutions])


def _joined(parts: Iterable[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    return np.concatenate([np.empty(0), *parts])
