"""PRMBench: which kinds of error does a scorer see? (Song et al., 2025, arXiv:2501.03124).

Every number is computed as the authors' code does (``prmtest_classified`` and the tables made from it), peculiarities
included: a figure without anything to count is -1, and the harmonic means are taken over such values too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from gradatim.evaluation.benchmarks.base import AREA_RESAMPLES, Scores, ThresholdBenchmark, best_quantile
from gradatim.evaluation.benchmarks.benchmark_rows import Row
from gradatim.evaluation.bootstrap import Estimate, named_aucs
from gradatim.evaluation.step_records import StepRecord, check_scores
from gradatim.part import part

GROUPS = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
"""The error classes (spelled as the data spells them) of each of the benchmark's three subjects."""

CLASSES = tuple(name for names in GROUPS.values() for name in names)
CORRECT = "correct"
"""The group of the unmodified solutions: they are compared with the modified ones and count in no total."""

_SOURCE_OF_CORRECT = "redundency"
_UNDEFINED = -1.0
_STEP_NUMBER = re.compile(r"\A(?:step\s*)?\d+\.\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PrmBenchMeasures:
    """What the authors report of a set of solutions, under their names; a right step is the positive class.

    Attributes:
        f1: of the right steps.
        negative_f1: of the wrong steps.
        total_step_acc: share of the steps that are judged rightly.
        correct_step_acc: of the right steps.
        wrong_step_acc: of the wrong steps.
        first_error_acc: share of the first wrong steps that are called wrong.
        similarity: mean distance between the shares of steps called right in a modified solution and in its original;
            a scorer that cannot tell them apart has 0.
    """

    precision: float
    recall: float
    f1: float
    negative_precision: float
    negative_recall: float
    negative_f1: float
    total_step_acc: float
    correct_step_acc: float
    wrong_step_acc: float
    first_error_acc: float
    similarity: float

    @property
    def both_kinds(self) -> bool:
        """Whether there are right steps and wrong ones."""
        return _UNDEFINED not in (self.correct_step_acc, self.wrong_step_acc)

    @property
    def score(self) -> float:
        """PRMScore: the mean of both F1, not below 0."""
        return max(0.0, 0.5 * self.f1 + 0.5 * self.negative_f1)


@dataclass(frozen=True, slots=True)
class PrmBenchResult:
    """What a scorer reaches, all as shares.

    Attributes:
        threshold: a step is right when its score is above it.
        total: over all modified solutions.
        classes: for each error class, and for the unmodified solutions.
        auc: that a right step scores above a wrong one, over all modified solutions, which the authors do not report.
    """

    threshold: float
    total: PrmBenchMeasures
    classes: dict[str, PrmBenchMeasures]
    auc: Estimate | None = None

    def class_score(self, name: str) -> float:
        """PRMScore of an error class; ``multi_solutions`` has no wrong steps, so only the F1 of right steps counts."""
        measures = self.classes[name]
        return max(0.0, measures.f1) if name == "multi_solutions" else measures.score

    def group_scores(self) -> dict[str, float]:
        """For each subject with any data the mean of its classes' scores, as the authors count what is missing."""
        present = {group: [name for name in names if name in self.classes] for group, names in GROUPS.items()}
        return {
            group: sum(map(self.class_score, names)) / len(names) for group, names in present.items() if names
        }  # fmt: skip

    def figures(self) -> dict[str, float | None]:
        """What tables show, in percent (the threshold as it is); ``None`` where there is nothing to count."""
        scores: dict[str, float] = {"PRMScore": self.total.score if self.total.both_kinds else _UNDEFINED}
        groups = self.group_scores()
        for group, names in GROUPS.items():
            if group in groups:
                whole = all(self._has_score(name) for name in names if name in self.classes)
                scores[group] = groups[group] if whole else _UNDEFINED
        for name in CLASSES:
            if name in self.classes:
                scores[f"  {name}"] = self.class_score(name) if self._has_score(name) else _UNDEFINED
        measures = {
            "F1": self.total.f1,
            "negative F1": self.total.negative_f1,
            "step accuracy": self.total.total_step_acc,
            "first-error accuracy": self.total.first_error_acc,
            "similarity": self.total.similarity,
        }
        shares = {name: None if value == _UNDEFINED else 100 * value for name, value in (scores | measures).items()}
        area = {} if self.auc is None else {"AUC of steps": 100 * self.auc.value}
        return {**shares, **area, "threshold": self.threshold}

    def _has_score(self, name: str) -> bool:
        """Whether an error class has the kinds of steps that its score is made of."""
        return self.classes[name].both_kinds or name == "multi_solutions"

    def to_json(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "prm_score": self.total.score,
            "auc": None if self.auc is None else self.auc.to_json(),
            "groups": self.group_scores(),
            "total": asdict(self.total),
            "classes": {
                name: {"prm_score": self.class_score(name), **asdict(measures)}
                for name, measures in self.classes.items()
            },
        }


@part
class Prmbench(ThresholdBenchmark):
    """PRMBench: which kinds of error does a scorer see? (Song et al., 2025, arXiv:2501.03124).

    Records have ``modified_question``, ``modified_process``, ``error_steps`` and ``classification``. Each gives one
    record, of its error class; those of the class ``redundency`` give their original solution too, in the group
    ``correct``. A class's records with the same ``idx`` count once. ``error_steps`` are counted from 1; published ones
    point beyond the last step now and then and are passed over there, as by the authors. A number in front of a step
    ("1. ", "Step 1. ") is taken off, as in the authors' code before a model reads it. The threshold ``auto`` is the
    one of the highest PRMScore.
    """

    title: ClassVar[str] = "PRMBench"

    def read(self, rows: Sequence[Row]) -> list[StepRecord]:
        records: dict[str, StepRecord] = {}
        for row in rows:
            name = row.text("classification")
            if name not in CLASSES:
                raise row.refuse(f"has the classification {name!r}; the benchmark has {', '.join(CLASSES)}")
            question = row.text("idx").removeprefix(f"{name}_")  # the hub's copy puts the class in front
            if name == _SOURCE_OF_CORRECT:
                original, steps = row.text("original_question"), _steps(row, "original_process")
                labels = (True,) * len(steps)
                _add(records, StepRecord(f"{CORRECT}_{question}", original, steps, labels, CORRECT, question))
            problem, steps = row.text("modified_question"), _steps(row, "modified_process")
            _add(records, StepRecord(f"{name}_{question}", problem, steps, _labels(row, len(steps)), name, question))
        return list(records.values())

    def judge(self, records: Sequence[StepRecord], scores: Scores, threshold: float) -> PrmBenchResult:
        steps = (
            ("steps", record.question, bool(label), score)
            for record, values in zip(records, scores, strict=True)
            for label, score in zip(record.labels, values, strict=True)
            if record.group != CORRECT
        )
        area = named_aucs(steps, resamples=AREA_RESAMPLES, seed=self.seed).get("steps")
        return replace(prmbench(records, scores, threshold), auc=area)

    def choose(self, records: Sequence[StepRecord], scores: Scores) -> float:
        return best_quantile(scores, lambda threshold: prmbench(records, scores, threshold).total.score)


def _steps(row: Row, name: str) -> tuple[str, ...]:
    """Steps without their numbers."""
    return tuple(_STEP_NUMBER.sub("", step.strip()) for step in row.texts(name))


def _add(records: dict[str, StepRecord], record: StepRecord) -> None:
    records.setdefault(record.id, record)


def _labels(row: Row, steps: int) -> tuple[bool, ...]:
    errors = row.integers("error_steps")
    if errors and min(errors) < 1:
        raise row.refuse(f"has the error step {min(errors)}, but steps are counted from 1")
    return tuple(number not in errors for number in range(1, steps + 1))


def prmbench(
    records: Sequence[StepRecord], scores: Sequence[Sequence[float]], threshold: float = 0.5
) -> PrmBenchResult:
    """The benchmark's numbers.

    Args:
        records: see :class:`Prmbench`.
        scores: for each record the scores of its steps.
        threshold: a step is right when its score is above it.

    Raises:
        GradatimError: if a step has no score.
    """
    check_scores(records, scores)
    verdicts = [tuple(score > threshold for score in values) for values in scores]
    original_share = {
        record.question: sum(judged) / len(judged)
        for record, judged in zip(records, verdicts, strict=True)
        if record.group == CORRECT
    }
    total, classes = StepTally(), {record.group: StepTally() for record in records}
    for record, judged in zip(records, verdicts, strict=True):
        for tally in (classes[record.group], total) if record.group != CORRECT else (classes[CORRECT],):
            tally.add(record.labels, judged)
            share = original_share.get(record.question)
            if record.group != CORRECT and share:  # an original of which every step is refused is left out
                tally.similarities.append(abs(sum(judged) / len(judged) - share))
    return PrmBenchResult(threshold, total.measures(), {name: tally.measures() for name, tally in classes.items()})


@dataclass(slots=True)
class StepTally:
    """Counts of judged steps.

    Attributes:
        right_called_right: and so on; the first word is the truth.
        first_errors: how many solutions have a wrong step.
        first_errors_found: in how many the first one was called wrong.
        similarities: see :class:`PrmBenchMeasures`.
    """

    right_called_right: int = 0
    right_called_wrong: int = 0
    wrong_called_right: int = 0
    wrong_called_wrong: int = 0
    first_errors: int = 0
    first_errors_found: int = 0
    similarities: list[float] = field(default_factory=list)

    def add(self, labels: Sequence[bool | None], judged: Sequence[bool]) -> None:
        """Count the steps of one solution: what they are, and what they were called."""
        pairs = list(zip(labels, judged, strict=True))
        self.right_called_right += pairs.count((True, True))
        self.right_called_wrong += pairs.count((True, False))
        self.wrong_called_right += pairs.count((False, True))
        self.wrong_called_wrong += pairs.count((False, False))
        if False in labels:
            self.first_errors += 1
            self.first_errors_found += not judged[labels.index(False)]

    def measures(self) -> PrmBenchMeasures:
        called_right, called_wrong = (
            self.right_called_right + self.wrong_called_right,
            self.right_called_wrong + self.wrong_called_wrong,
        )
        right, wrong = (
            self.right_called_right + self.right_called_wrong,
            self.wrong_called_right + self.wrong_called_wrong,
        )
        precision, recall = _ratio(self.right_called_right, called_right), _ratio(self.right_called_right, right)
        negative_precision = _ratio(self.wrong_called_wrong, called_wrong)
        negative_recall = _ratio(self.wrong_called_wrong, wrong)
        return PrmBenchMeasures(
            precision=precision,
            recall=recall,
            f1=_f1(precision, recall),
            negative_precision=negative_precision,
            negative_recall=negative_recall,
            negative_f1=_f1(negative_precision, negative_recall),
            total_step_acc=_ratio(self.right_called_right + self.wrong_called_wrong, right + wrong),
            correct_step_acc=recall,
            wrong_step_acc=negative_recall,
            first_error_acc=_ratio(self.first_errors_found, self.first_errors),
            similarity=_ratio(sum(self.similarities), len(self.similarities)),
        )


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else _UNDEFINED


def _f1(precision: float, recall: float) -> float:
    both = precision + recall
    return 2 * precision * recall / both if both else _UNDEFINED
