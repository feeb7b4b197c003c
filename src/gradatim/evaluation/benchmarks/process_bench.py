"""ProcessBench: is the first wrong step of a solution found? (Zheng et al., 2024, arXiv:2412.06559)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gradatim.errors import GradatimError
from gradatim.evaluation.benchmarks.base import Scores, ThresholdBenchmark
from gradatim.evaluation.benchmarks.benchmark_rows import Row
from gradatim.evaluation.metrics import FirstErrorScore, first_below, first_error_f1
from gradatim.evaluation.step_records import StepRecord, check_scores
from gradatim.part import part

CALIBRATION_SUBSET = "gsm8k"
"""The subset on which the paper chooses a reward model's threshold."""

_NUMBERED_ID = re.compile(r"(.+)-\d+")


@dataclass(frozen=True, slots=True)
class ProcessBenchResult:
    """What a scorer reaches, all as shares.

    Attributes:
        threshold: a step is wrong when its score is below it.
        subsets: for each subset the two accuracies and their harmonic mean.
    """

    threshold: float
    subsets: dict[str, FirstErrorScore]

    @property
    def average_f1(self) -> float | None:
        """Mean of the subsets' F1, each subset counting the same, as in the paper's tables; ``None`` where a subset has
        none, since it lacks wrong or right solutions."""
        found = [score.f1 for score in self.subsets.values() if score.f1 is not None]
        return sum(found) / len(found) if len(found) == len(self.subsets) else None

    def figures(self) -> dict[str, float | None]:
        """What tables show, in percent; the threshold as it is."""
        shares = {
            f"{subset}, {label}": _percent(value)
            for subset, score in self.subsets.items()
            for label, value in {
                "error accuracy": score.error_accuracy,
                "correct accuracy": score.correct_accuracy,
                "F1": score.f1,
            }.items()
        }
        return {**shares, "average F1": _percent(self.average_f1), "threshold": self.threshold}

    def to_json(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "average_f1": self.average_f1,
            "subsets": {name: score.to_json() for name, score in self.subsets.items()},
        }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


@part
class ProcessBench(ThresholdBenchmark):
    """ProcessBench: is the first wrong step of a solution found? (Zheng et al., 2024, arXiv:2412.06559).

    Records have ``problem``, ``steps`` and ``label``: the index of the first wrong step, or -1 for none. The steps
    before the first wrong one are right; nothing is known of those after it. A record's group is its subset: the front
    part of its ``id`` (``gsm8k-17``), else its file's or split's name. Without validation data, the threshold ``auto``
    is chosen on the GSM8K subset, as in the paper.
    """

    title: ClassVar[str] = "ProcessBench"

    def read(self, rows: Sequence[Row]) -> list[StepRecord]:
        return [_record(row) for row in rows]

    def judge(self, records: Sequence[StepRecord], scores: Scores, threshold: float) -> ProcessBenchResult:
        return process_bench(records, scores, threshold)

    def choose(self, records: Sequence[StepRecord], scores: Scores) -> float:
        return best_f1_threshold(scores, [record.first_error for record in records])

    def _deciding(self, judged: list[tuple[StepRecord, Sequence[float]]]) -> list[tuple[StepRecord, Sequence[float]]]:
        if not (part := [pair for pair in judged if pair[0].group == CALIBRATION_SUBSET]):
            raise GradatimError(
                f"the threshold is chosen on the {CALIBRATION_SUBSET} subset, but the data has none; "
                "give that subset too, validation data, or a number as threshold",
            )
        return part


def _record(row: Row) -> StepRecord:
    steps, label = row.texts("steps"), row.integer("label")
    if not -1 <= label < len(steps):
        raise row.refuse(
            f"has the label {label}, but its steps are numbered from 0 to {len(steps) - 1}; give -1 where none is wrong"
        )
    labels: list[bool | None] = [True] * len(steps)
    if label >= 0:
        labels[label:] = [False] + [None] * (len(steps) - label - 1)
    name = row.name("id")
    numbered = _NUMBERED_ID.fullmatch(name)
    return StepRecord(
        id=name,
        problem=row.text("problem"),
        steps=steps,
        labels=tuple(labels),
        group=numbered[1] if numbered else row.part,
        question=row.place,
        correct=row.boolean("final_answer_correct") if "final_answer_correct" in row.values else None,
    )


def process_bench(
    records: Sequence[StepRecord], scores: Sequence[Sequence[float]], threshold: float = 0.5
) -> ProcessBenchResult:
    """Accuracy on erroneous and on correct solutions, and their F1, for each subset.

    The predicted first error is the first step that scores below the threshold. Where both accuracies are 0 their
    harmonic mean is 0 (the authors' code divides by zero there).

    Args:
        records: see :class:`ProcessBench`.
        scores: for each record the scores of its steps.
        threshold: a step is wrong when its score is below it.

    Raises:
        GradatimError: if a step has no score.
    """
    check_scores(records, scores)
    members: dict[str, list[tuple[int | None, int | None]]] = {}
    for record, values in zip(records, scores, strict=True):
        members.setdefault(record.group, []).append((first_below(values, threshold), record.first_error))
    return ProcessBenchResult(
        threshold,
        {
            group: first_error_f1([guess for guess, _ in pairs], [true for _, true in pairs])
            for group, pairs in members.items()
        },
    )


def best_f1_threshold(scores: Sequence[Sequence[float]], truth: Sequence[int | None]) -> float:
    """The threshold of the highest F1 of first errors (:func:`gradatim.evaluation.metrics.first_error_f1`).

    Exact, in O(n log n): a solution is judged rightly at every threshold above its first wrong step's score (where it
    has one) and not above any score before that, which is one interval.

    Args:
        scores: for each solution the scores of its steps.
        truth: for each solution the index of its first wrong step, or ``None``.

    Returns:
        A score that occurs, of equals the lowest; ``inf``, where it is best to call every first step wrong.
    """
    right = {True: [(-np.inf, -np.inf)], False: [(-np.inf, -np.inf)]}  # has an error: intervals (above, up to]
    for values, error in zip(scores, truth, strict=True):
        low = -np.inf if error is None else values[error]
        high = min(values[:error], default=np.inf)
        if low < high:
            right[error is not None].append((low, high))
    candidates = np.unique([*(value for values in scores for value in values), np.inf])

    def accuracy(has_error: bool) -> Any:
        low, high = np.array(right[has_error]).T
        counts = np.searchsorted(np.sort(low), candidates) - np.searchsorted(np.sort(high), candidates)
        return counts / max(1, sum((error is not None) == has_error for error in truth))

    on_errors, on_correct = accuracy(True), accuracy(False)
    both = on_errors + on_correct
    f1 = np.divide(2 * on_errors * on_correct, both, out=np.zeros_like(both), where=both > 0)
    return float(candidates[int(f1.argmax())])
