"""Solutions whose steps are labelled one by one: are wrong steps told from right ones?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from gradatim.evaluation.benchmarks.base import AREA_RESAMPLES, Scores, ThresholdBenchmark, best_quantile
from gradatim.evaluation.benchmarks.benchmark_rows import Row
from gradatim.evaluation.bootstrap import Estimate, bootstrap_mean, bootstrap_ratio, named_aucs
from gradatim.evaluation.metrics import FirstErrorScore, first_below, first_error_f1
from gradatim.evaluation.step_records import StepRecord
from gradatim.part import part

ALL = "all"


@dataclass(frozen=True, slots=True)
class LabelledStepsResult:
    """What a scorer reaches over labelled steps, all as shares; intervals over questions.

    Attributes:
        threshold: a step is called wrong when its score is below it.
        solutions, steps, wrong_steps: how many there are.
        auc: that a right step scores above a wrong one, over all and by kind of solution; ``None`` where all labels
            are alike.
        siblings: how often the first wrong step of a solution scores below the right step at its place in a solution
            without error that begins alike and is as far from its end or not (ties count half), over all pairs and by
            kind; chance is one half. Neither the place nor the beginning tells them apart.
        pairs: of such steps, over all and by kind.
        first_error: how well first wrong steps are found at the threshold.
        precision, recall, f1: of the steps that are called wrong.
        f1_of_calling_all_wrong: what nobody should be proud of.
        lowest_is_first_error: share of the solutions with an error whose lowest score is that of the first wrong step;
            ``None`` without any.
        lowest_by_chance: what drawing a step by lot would reach of it.
    """

    threshold: float
    solutions: int
    steps: int
    wrong_steps: int
    auc: dict[str, Estimate | None]
    siblings: dict[str, Estimate]
    pairs: dict[str, int]
    first_error: FirstErrorScore
    precision: float
    recall: float
    f1: float
    f1_of_calling_all_wrong: float
    lowest_is_first_error: Estimate | None
    lowest_by_chance: float | None

    def figures(self) -> dict[str, float | None]:
        """What tables show, in percent; the threshold as it is."""
        shares: dict[str, Estimate | float | None] = {
            "AUC of steps": self.auc.get(ALL),
            "wrong step below right": self.siblings.get(ALL),
            **{f"  {kind}": share for kind, share in self.siblings.items() if kind != ALL},
            "first-error F1": self.first_error.f1,
            "F1 of wrong steps": self.f1,
            "precision": self.precision,
            "recall": self.recall,
            "F1 of calling every step wrong": self.f1_of_calling_all_wrong,
            "lowest step is the first error": self.lowest_is_first_error,
            "a step by lot is the first error": self.lowest_by_chance,
        }
        return {**{name: _percent(share) for name, share in shares.items()}, "threshold": self.threshold}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _percent(share: Estimate | float | None) -> float | None:
    value = share.value if isinstance(share, Estimate) else share
    return None if value is None else 100 * value


@part
class LabelledSteps(ThresholdBenchmark):
    """Solutions whose steps are labelled one by one, in a layout of this library's own.

    Records have ``question``, ``steps`` and ``labels``, for each step true, false or null where it counts for nothing,
    and perhaps ``kind``, such as that of the error. The threshold ``auto`` is the one of the highest F1 of first
    errors.
    """

    title: ClassVar[str] = "Labelled steps"

    def read(self, rows: Sequence[Row]) -> list[StepRecord]:
        return [_record(row) for row in rows]

    def choose(self, records: Sequence[StepRecord], scores: Scores) -> float:
        truth = [record.first_error for record in records]

        def f1(threshold: float) -> float:
            return first_error_f1([first_below(values, threshold) for values in scores], truth).f1 or 0.0

        return best_quantile(scores, f1)

    def judge(self, records: Sequence[StepRecord], scores: Scores, threshold: float) -> LabelledStepsResult:
        return labelled_steps(records, scores, threshold, seed=self.seed)


def _record(row: Row) -> StepRecord:
    problem, steps = row.text("question"), row.texts("steps")
    kind = row.text("kind") if "kind" in row.values else None
    labels = row.labels("labels", steps, unknown=True)
    return StepRecord(row.name("id", "idx"), problem, steps, labels, "labelled steps", problem, author=kind)


def labelled_steps(
    records: Sequence[StepRecord], scores: Scores, threshold: float = 0.5, *, seed: int = 0
) -> LabelledStepsResult:
    """Measure step scores over the steps that have labels.

    Args:
        records: see :class:`LabelledSteps`.
        scores: for each record the scores of its steps.
        threshold: a step is called wrong when its score is below it.
        seed: of the intervals.
    """
    judged: list[tuple[str, str, bool, float]] = []  # kind, question, label and score of each step
    predicted, truth, lowest, chance = [], [], [], []
    for record, values in zip(records, scores, strict=True):
        known = [(label, score) for label, score in zip(record.labels, values, strict=True) if label is not None]
        judged += [(name, record.question, label, score) for name in _kinds(record) for label, score in known]
        predicted.append(first_below([score for _, score in known], threshold))
        truth.append(next((place for place, (label, _) in enumerate(known) if not label), None))
        if truth[-1] is not None:
            lowest.append(float(np.argmin([score for _, score in known]) == truth[-1]))
            chance.append(1 / len(known))
    steps = [(label, score < threshold) for name, _, label, score in judged if name == ALL]
    wrong, called = sum(not label for label, _ in steps), sum(below for _, below in steps)
    hits = sum(below and not label for label, below in steps)
    wins = _sibling_wins(records, scores)
    return LabelledStepsResult(
        threshold=threshold,
        solutions=len(records),
        steps=len(steps),
        wrong_steps=wrong,
        auc=named_aucs(judged, resamples=AREA_RESAMPLES, seed=seed),
        siblings={
            name: bootstrap_ratio([sum(won) for won in part.values()], [len(won) for won in part.values()], seed=seed)
            for name, part in wins.items()
        },
        pairs={name: sum(map(len, part.values())) for name, part in wins.items()},
        first_error=first_error_f1(predicted, truth),
        precision=hits / max(1, called),
        recall=hits / max(1, wrong),
        f1=2 * hits / max(1, called + wrong),
        f1_of_calling_all_wrong=2 * wrong / max(1, len(steps) + wrong),
        lowest_is_first_error=bootstrap_mean(lowest, seed=seed) if lowest else None,
        lowest_by_chance=float(np.mean(chance)) if chance else None,
    )


def _kinds(record: StepRecord) -> list[str]:
    return [ALL] if record.author is None else [ALL, record.author]


def _sibling_wins(records: Sequence[StepRecord], scores: Scores) -> dict[str, dict[str, list[float]]]:
    """For each kind and question, of each pair 1 where the wrong step scores below the right one, and half for a tie.

    A solution is compared with the last one before it of its question that has no wrong step.
    """
    wins: dict[str, dict[str, list[float]]] = {}
    references: dict[str, tuple[StepRecord, Sequence[float]]] = {}
    for record, values in zip(records, scores, strict=True):
        if (place := record.first_error) is None:
            references[record.question] = record, values
        elif record.question in references:
            reference, right = references[record.question]
            alike = record.steps[:place] == reference.steps[:place] and place < len(reference.steps)
            if alike and (place + 1 == len(record.steps)) is (place + 1 == len(reference.steps)):
                win = 0.5 if values[place] == right[place] else float(values[place] < right[place])
                for name in _kinds(record):
                    wins.setdefault(name, {}).setdefault(record.question, []).append(win)
    return wins
