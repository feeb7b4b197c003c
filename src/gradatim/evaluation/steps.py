"""How good step scores are, measured against an oracle or human labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradatim.errors import GradatimError
from gradatim.evaluation.benchmarks.process_bench import best_f1_threshold
from gradatim.evaluation.bootstrap import Estimate, clustered_auc
from gradatim.evaluation.metrics import (
    FirstErrorScore,
    accuracy_at,
    best_threshold,
    first_below,
    first_error_f1,
)
from gradatim.tasks.truth import StepTruth, TruthName, state_truth
from gradatim.tree import Tree

UNDECIDED = 0.5
"""The threshold where nothing tells of a better one."""


@dataclass(frozen=True, slots=True)
class ScoredStates:
    """The scored partial solutions of one problem, and the truth about them.

    Attributes:
        labels: ``[states]``, whether a right continuation exists.
        scores: ``[states]``.
        solutions: for each whole solution, its steps' scores and the index of its first wrong step.
        depths: ``[states]``, how many steps each has.
    """

    labels: tuple[bool, ...]
    scores: tuple[float, ...]
    solutions: tuple[tuple[tuple[float, ...], int | None], ...] = ()
    depths: tuple[int, ...] = ()

    def of_depth(self, depth: int) -> ScoredStates:
        """Those of so many steps alone."""
        kept = [place for place, each in enumerate(self.depths) if each == depth]
        return ScoredStates(tuple(self.labels[place] for place in kept), tuple(self.scores[place] for place in kept))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The scores from which on a step counts as right, each chosen for one measure; see :func:`choose_thresholds`.

    Attributes:
        accuracy: the threshold of the highest accuracy over partial solutions.
        first_error: the threshold of the highest first-error F1 over whole solutions.
    """

    accuracy: float | None = None
    first_error: float | None = None


NO_THRESHOLDS = Thresholds()
"""Where nothing was chosen."""


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
        threshold: a score of at least this is judged good, for the accuracy.
        first_error_threshold: the first step with a score below this is called the first error.
        accuracy: share of states judged rightly at ``threshold``.
        share_good: share of good states: what judging without looking can reach (or one minus it).
        first_error: how well first wrong steps are found at that threshold; ``None`` where not both right
            and wrong whole solutions are there.
        calibration: bins of equal width from score 0 to 1 that are not empty.
        states: number of states.
        choice: how the thresholds were chosen, as a sentence.
        truth: what a state is called good by (:mod:`gradatim.tasks.truth`).
    """

    scorer: str
    auc: Estimate | None
    threshold: float
    first_error_threshold: float
    accuracy: float
    share_good: float
    first_error: FirstErrorScore | None
    calibration: tuple[CalibrationBin, ...]
    states: int
    choice: str = ""
    truth: TruthName = "reachable"

    def to_json(self) -> dict[str, Any]:
        return {
            "scorer": self.scorer,
            "truth": self.truth,
            "states": self.states,
            "problems": 0 if self.auc is None else self.auc.n,
            **({"auc": None, "auc_interval": None} if self.auc is None else self.auc.fields("auc")),
            "accuracy": self.accuracy,
            "threshold": self.threshold,
            "first_error_threshold": self.first_error_threshold,
            "thresholds": self.choice,
            "share_good": self.share_good,
            "first_error_f1": None if self.first_error is None else self.first_error.f1,
            "first_error": None if self.first_error is None else self.first_error.to_json(),
            "calibration": [part.to_json() for part in self.calibration],
        }


def scored_states(tree: Tree, task: Any, scorer: str) -> ScoredStates:
    """Every scored partial solution of ``tree`` (each once) and every wholly scored solution, with the truth.

    Partial solutions are the open nodes below the root; finished ones have nothing left to predict.

    Args:
        tree: a tree of the task.
        task: with the truth about partial solutions (:func:`gradatim.tasks.truth.state_truth`); solutions are judged
            where it knows first errors.
        scorer: the name of the scores.

    Raises:
        GradatimError: if the task knows no truth.
    """
    truth = state_truth(task)
    if truth is None:
        raise GradatimError("the task knows no truth about partial solutions; give it reachable or first_error")
    problem = tree.problem
    nodes = [node for node in tree.nodes[1:] if node.open and scorer in node.scores]
    solutions = []
    for leaf in tree.leaves():
        path = leaf.path()[1:]
        if isinstance(task, StepTruth) and leaf.finished and all(scorer in node.scores for node in path):
            texts = [node.step.text_with_observation for node in path]
            solutions.append((tuple(node.scores[scorer] for node in path), task.first_error(problem, texts)))
    return ScoredStates(
        labels=tuple(truth.holds(problem, node.text) for node in nodes),
        scores=tuple(node.scores[scorer] for node in nodes),
        solutions=tuple(solutions),
        depths=tuple(node.depth for node in nodes),
    )


def step_score_result(
    scorer: str,
    problems: Sequence[ScoredStates],
    *,
    thresholds: Thresholds = NO_THRESHOLDS,
    choice: str = "",
    truth: TruthName = "reachable",
    resamples: int = 1000,
    seed: int = 0,
) -> StepScoreResult:
    """Measure step scores over the states of many problems (see :class:`StepScoreResult`).

    Args:
        scorer: its name.
        problems: the states of each.
        thresholds: chosen on other problems than these; 0.5 where there is none.
        choice: how they were chosen, as a sentence for people.
        truth: which truth the labels of the states are.
        resamples, seed: of the bootstrap.

    Raises:
        GradatimError: if there are no states at all, or a score is not a number.
    """
    groups = [(np.array(states.labels, dtype=bool), np.array(states.scores)) for states in problems if states.scores]
    labels = _joined(part for part, _ in groups).astype(bool)
    scores = _joined(part for _, part in groups)
    threshold = UNDECIDED if thresholds.accuracy is None else thresholds.accuracy
    first_error_threshold = UNDECIDED if thresholds.first_error is None else thresholds.first_error
    solutions = [solution for states in problems for solution in states.solutions]
    kinds = {error is None for _, error in solutions}

    return StepScoreResult(
        scorer=scorer,
        auc=clustered_auc(groups, resamples=resamples, seed=seed),
        threshold=threshold,
        first_error_threshold=first_error_threshold,
        accuracy=accuracy_at(labels, scores, threshold),
        share_good=float(labels.mean()),
        first_error=_first_error(solutions, first_error_threshold) if len(kinds) == 2 else None,
        calibration=calibration_bins(labels, scores),
        states=len(labels),
        choice=choice,
        truth=truth,
    )


def choose_thresholds(problems: Sequence[ScoredStates]) -> Thresholds:
    """The thresholds that are best over the states of (held-out) problems, each for its own measure.

    Of equally good ones the lowest. There is none for the accuracy where it is best to call every state wrong, and
    none for first errors where not both wrong and right solutions are found at any threshold (F1 0, as of solutions
    that are all wrong).
    """
    labels = [label for states in problems for label in states.labels]
    scores = [score for states in problems for score in states.scores]
    accuracy = best_threshold(labels, scores)[0] if labels else math.inf
    solutions = [solution for states in problems for solution in states.solutions]
    first_error = best_f1_threshold([values for values, _ in solutions], [error for _, error in solutions])
    found = bool(solutions) and (_first_error(solutions, first_error).f1 or 0.0) > 0
    return Thresholds(accuracy if math.isfinite(accuracy) else None, first_error if found else None)


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
