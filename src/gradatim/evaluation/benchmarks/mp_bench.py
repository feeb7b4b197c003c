"""MPBench: the three uses of a step scorer (Xu et al., 2025, arXiv:2503.12505), for problems without images.

A scorer is to judge steps (*step correctness*), to choose among whole solutions (*answer aggregation*) and to choose
the next step (*reasoning process search*). We found no code of the authors to compare with; what is computed here is
what descriptions of the paper and its table of results show (in a search between two candidates ``F1 = (1 + MCC) / 2``;
the overall score is the mean of the three uses' averages).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import FiniteFloat

from gradatim.evaluation.benchmarks.base import Scores, StepBenchmark
from gradatim.evaluation.benchmarks.benchmark_rows import Row
from gradatim.evaluation.benchmarks.best_of_n import samples_by_question, solution_records
from gradatim.evaluation.benchmarks.prmbench import StepTally
from gradatim.evaluation.metrics import best_of_n, first_below, weighted_majority
from gradatim.evaluation.step_records import StepRecord, check_scores
from gradatim.part import part
from gradatim.scorers.aggregation import Aggregate

STEP_CORRECTNESS = "step correctness"
ANSWER_AGGREGATION = "answer aggregation"
PROCESS_SEARCH = "reasoning process search"


@dataclass(frozen=True, slots=True)
class StepCorrectness:
    """How well steps are judged.

    Attributes:
        first_error: share of the solutions whose first wrong step is named exactly (or, where there is none, none is).
        all_errors: mean of the F1 of right steps and that of wrong steps, over all steps; only one of them where the
            other kind neither occurs nor is ever named.
    """

    first_error: float
    all_errors: float

    @property
    def average(self) -> float:
        return (self.first_error + self.all_errors) / 2


@dataclass(frozen=True, slots=True)
class AnswerAggregation:
    """How well whole solutions are chosen: share of questions with a right choice.

    Attributes:
        best_of_n: by the highest score.
        majority: by the answer with the highest sum of scores.
    """

    best_of_n: float
    majority: float

    @property
    def average(self) -> float:
        return (self.best_of_n + self.majority) / 2


@dataclass(frozen=True, slots=True)
class ProcessSearch:
    """How well next steps are chosen: the highest-scored candidate is called right, the others wrong.

    Attributes:
        f1: of the right candidates.
        mcc: Matthews' correlation between what candidates are and what they are called, -1 to 1; 0 where undefined.
    """

    f1: float
    mcc: float

    @property
    def average(self) -> float:
        return (self.f1 + self.mcc) / 2


@dataclass(frozen=True, slots=True)
class MpBenchResult:
    """What a scorer reaches in each use that the data has.

    Attributes:
        threshold: a step is wrong when its score is below it.
    """

    threshold: float
    step_correctness: StepCorrectness | None
    answer_aggregation: AnswerAggregation | None
    process_search: ProcessSearch | None

    @property
    def overall(self) -> float:
        """Mean of the averages of the uses that the data has."""
        uses = [self.step_correctness, self.answer_aggregation, self.process_search]
        averages = [use.average for use in uses if use is not None]
        return sum(averages) / len(averages)

    def figures(self) -> dict[str, float | None]:
        """What tables show, in percent; the threshold as it is."""
        uses = {
            STEP_CORRECTNESS: self.step_correctness,
            ANSWER_AGGREGATION: self.answer_aggregation,
            PROCESS_SEARCH: self.process_search,
        }
        shares: dict[str, float | None] = {
            f"{use}, {name.replace('_', ' ')}": 100 * value
            for use, result in uses.items()
            if result is not None
            for name, value in {**asdict(result), "average": result.average}.items()
        }
        return {**shares, "overall": 100 * self.overall, "threshold": self.threshold}

    def to_json(self) -> dict[str, Any]:
        return {"overall": self.overall, **asdict(self)}


@part
class MpBench(StepBenchmark):
    """MPBench: the three uses of a step scorer (Xu et al., 2025, arXiv:2503.12505), for problems without images.

    Records of any of the three uses are told apart by their fields. The layout is this library's own; published files
    must be converted.

    - Step correctness: ``question``, ``steps`` and ``labels``, one true or false for each step.
    - Answer aggregation: ``question`` and ``solutions``, as in
      :class:`gradatim.evaluation.benchmarks.best_of_n.BestOfN`, with answers.
    - Reasoning process search: ``question``, ``steps`` (the solution so far, which may be none), ``candidates`` and
      ``labels``, one for each candidate.
    """

    title: ClassVar[str] = "MPBench"

    threshold: FiniteFloat = 0.5
    """A step is wrong when its score is below it."""
    aggregate: Aggregate = "last"
    """How a solution's score is made from its steps'."""

    def read(self, rows: Sequence[Row]) -> list[StepRecord]:
        return [record for row in rows for record in _records(row)]

    def measure(self, records: Sequence[StepRecord], scores: Scores) -> MpBenchResult:
        return mp_bench(records, scores, self.threshold, self.aggregate)


def _records(row: Row) -> list[StepRecord]:
    if "solutions" in row.values:
        return solution_records(row, ANSWER_AGGREGATION)
    if "candidates" in row.values:
        return _candidates(row)
    problem, steps = row.text("question"), row.texts("steps")
    labels = row.labels("labels", steps)
    return [StepRecord(row.name("id", "idx"), problem, steps, labels, STEP_CORRECTNESS, row.place)]


def _candidates(row: Row) -> list[StepRecord]:
    problem, name = row.text("question"), row.name("id", "idx")
    candidates = row.texts("candidates")
    labels = row.labels("labels", candidates, "candidates")
    if not any(labels):
        raise row.refuse("has no right candidate; give at least one")
    history = row.texts("steps") if row.field("steps") else ()
    return [
        StepRecord(
            f"{name}/{number}", problem, (*history, candidate), (*(None for _ in history), label),
            PROCESS_SEARCH, row.place, finished=False,
        )
        for number, (candidate, label) in enumerate(zip(candidates, labels, strict=True), 1)
    ]  # fmt: skip


def mp_bench(
    records: Sequence[StepRecord],
    scores: Sequence[Sequence[float]],
    threshold: float = 0.5,
    aggregate: Aggregate = "last",
) -> MpBenchResult:
    """The benchmark's numbers, for the uses that the data has.

    Of equal scores one is drawn by lot; the numbers are what is to be expected of that.

    Args:
        records: see :class:`MpBench`.
        scores: for each record the scores of its steps.
        threshold: a step is wrong when its score is below it.
        aggregate: how a solution's score is made from its steps' (see
            :func:`gradatim.scorers.aggregation.solution_score`).

    Raises:
        GradatimError: if a step has no score, or a vote is to be weighted by a negative one.
    """
    check_scores(records, scores)
    uses: dict[str, tuple[list[StepRecord], list[Sequence[float]]]] = {}
    for record, values in zip(records, scores, strict=True):
        members, member_scores = uses.setdefault(record.group, ([], []))
        members.append(record)
        member_scores.append(values)
    return MpBenchResult(
        threshold,
        _step_correctness(*uses[STEP_CORRECTNESS], threshold) if STEP_CORRECTNESS in uses else None,
        _answer_aggregation(*uses[ANSWER_AGGREGATION], aggregate) if ANSWER_AGGREGATION in uses else None,
        _process_search(*uses[PROCESS_SEARCH]) if PROCESS_SEARCH in uses else None,
    )


def _step_correctness(
    records: Sequence[StepRecord], scores: Sequence[Sequence[float]], threshold: float
) -> StepCorrectness:
    tally, found = StepTally(), 0
    for record, values in zip(records, scores, strict=True):
        tally.add(record.labels, [score >= threshold for score in values])
        found += first_below(values, threshold) == record.first_error
    misjudged = tally.right_called_wrong + tally.wrong_called_right
    hits = (tally.right_called_right, tally.wrong_called_wrong)
    f1 = [2 * count / (2 * count + misjudged) for count in hits if count or misjudged]
    return StepCorrectness(found / len(records), sum(f1) / len(f1))


def _answer_aggregation(
    records: Sequence[StepRecord], scores: Sequence[Sequence[float]], aggregate: Aggregate
) -> AnswerAggregation:
    questions = list(samples_by_question(records, scores, aggregate).values())
    chosen = [best_of_n(samples, len(samples)) for samples in questions]
    voted = [weighted_majority(samples, len(samples)) for samples in questions]
    return AnswerAggregation(sum(chosen) / len(chosen), sum(voted) / len(voted))


def _process_search(records: Sequence[StepRecord], scores: Sequence[Sequence[float]]) -> ProcessSearch:
    questions: dict[str, list[tuple[bool, float]]] = {}
    for record, values in zip(records, scores, strict=True):
        questions.setdefault(record.question, []).append((bool(record.labels[-1]), values[-1]))
    right_chosen = 0.0
    for candidates in questions.values():
        best = max(score for _, score in candidates)
        tied = [right for right, score in candidates if score == best]
        right_chosen += sum(tied) / len(tied)
    right = sum(bool(record.labels[-1]) for record in records)
    wrong_chosen, right_left = len(questions) - right_chosen, right - right_chosen
    wrong_left = len(records) - right - wrong_chosen
    return ProcessSearch(
        f1=2 * right_chosen / (2 * right_chosen + wrong_chosen + right_left),
        mcc=_matthews(right_chosen, wrong_chosen, right_left, wrong_left),
    )


def _matthews(true_positive: float, false_positive: float, false_negative: float, true_negative: float) -> float:
    margins = (
        (true_positive + false_positive) * (true_positive + false_negative)
        * (true_negative + false_positive) * (true_negative + false_negative)
    )  # fmt: skip
    if margins <= 0:
        return 0.0
    return (true_positive * true_negative - false_positive * false_negative) / math.sqrt(margins)
