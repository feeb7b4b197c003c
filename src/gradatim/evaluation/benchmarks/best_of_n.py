"""Best-of-n: how good is the solution that a scorer picks among sampled ones?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from gradatim.evaluation.benchmarks.base import AREA_RESAMPLES, Scores, StepBenchmark
from gradatim.evaluation.benchmarks.benchmark_rows import Row
from gradatim.evaluation.bootstrap import Estimate, bootstrap_difference, bootstrap_mean, named_aucs
from gradatim.evaluation.metrics import Sample, best_of_n, majority, weighted_majority
from gradatim.evaluation.step_records import StepRecord, check_scores
from gradatim.part import part
from gradatim.scorers.aggregation import Aggregate, solution_score
from gradatim.tasks.number_answers import extract_answer


@dataclass(frozen=True, slots=True)
class BestOfNResult:
    """What selection by a scorer reaches, beside selection without one; all as shares, intervals over questions.

    Attributes:
        best_of: accuracy of the highest-scored of so many solutions; of 1, the share of right solutions.
        weighted_majority: accuracy of the answer with the highest sum of scores among all solutions.
        majority: accuracy of the most frequent answer.
        any_right: share of the questions with a right solution: the most that any selection can reach.
        authors: accuracy of each author's solutions, where they are known and each answered every question.
        differences: paired differences: of the highest-scored to a choice by lot and to each author, and of the
            weighted to the plain majority.
        outcome_auc: that a right solution scores above a wrong one, over all and for each author; ``None`` where all
            are alike.
    """

    best_of: dict[int, Estimate]
    weighted_majority: Estimate | None
    majority: Estimate | None
    any_right: Estimate
    authors: dict[str, Estimate] = field(default_factory=dict)
    differences: dict[str, Estimate] = field(default_factory=dict)
    outcome_auc: dict[str, Estimate | None] = field(default_factory=dict)

    def figures(self) -> dict[str, float | None]:
        """What tables show, in percent."""
        named: dict[str, Estimate | None] = {f"best of {n}": estimate for n, estimate in self.best_of.items()}
        named |= {
            "score-weighted majority": self.weighted_majority,
            "majority, without scores": self.majority,
            "any solution right": self.any_right,
            **{f"all by {author}": estimate for author, estimate in self.authors.items()},
            **self.differences,
            **{f"AUC of solutions, {name}": estimate for name, estimate in self.outcome_auc.items()},
        }
        return {name: None if estimate is None else 100 * estimate.value for name, estimate in named.items()}

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "best_of": {str(n): estimate.to_json() for n, estimate in self.best_of.items()}}


@part
class BestOfN(StepBenchmark):
    """Best-of-n over recorded solutions: how good is the one that a scorer picks among sampled ones?

    Records have a ``question`` and its sampled solutions. These stand in a list ``solutions``, each with ``steps`` (or
    ``solution``: the text, a step a line), ``correct`` and perhaps ``answer`` and ``author``. Or, as in GSM8K's
    ``model_solutions.jsonl``, they are fields of any names, each with ``solution`` and ``is_correct``; answers are then
    read from the texts.
    """

    title: ClassVar[str] = "Best-of-n selection"

    aggregate: Aggregate = "last"
    """How a solution's score is made from its steps'."""

    def read(self, rows: Sequence[Row]) -> list[StepRecord]:
        return [record for row in rows for record in _records(row)]

    def measure(self, records: Sequence[StepRecord], scores: Scores) -> BestOfNResult:
        return best_of_n_selection(records, scores, self.aggregate, seed=self.seed)


def _records(row: Row) -> list[StepRecord]:
    if "solutions" in row.values:
        return solution_records(row)
    problem, name = row.text("question"), row.name("id", "idx")
    named = {key: value for key, value in row.values.items() if isinstance(value, Mapping) and "is_correct" in value}
    if not named:
        raise row.refuse("has no sampled solutions; give them as a list in the field 'solutions'")
    records = []
    for key, value in named.items():
        solution = Row(value, f"{row.place}, {key},", row.part, row.number)
        text = solution.text("solution")
        steps = _lines(text)
        records.append(
            StepRecord(
                f"{name}/{key}", problem, steps, (None,) * len(steps), "best-of-n", row.place,
                correct=solution.boolean("is_correct"), answer=extract_answer(text), author=key,
            )
        )  # fmt: skip
    return records


def solution_records(row: Row, group: str = "best-of-n") -> list[StepRecord]:
    """The sampled solutions of a record in the list layout."""
    problem, name = row.text("question"), row.name("id", "idx")
    return [
        StepRecord(
            f"{name}/{solution.number}", problem, steps, (None,) * len(steps), group, row.place,
            correct=solution.boolean("correct"), answer=_text(solution.values.get("answer")),
            author=_text(solution.values.get("author")),
        )
        for solution in row.rows("solutions")
        for steps in [_steps(solution)]
    ]  # fmt: skip


def _steps(solution: Row) -> tuple[str, ...]:
    return solution.texts("steps") if "steps" in solution.values else _lines(solution.text("solution"))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line for line in text.split("\n") if line.strip())


def best_of_n_selection(
    records: Sequence[StepRecord],
    scores: Sequence[Sequence[float]],
    aggregate: Aggregate = "last",
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> BestOfNResult:
    """Accuracy of what the scores choose, for 1, 2, 4, ... and all solutions of a question.

    Exact in expectation over the subsets of the solutions, equal scores drawn by lot (see
    :func:`gradatim.evaluation.metrics.best_of_n`). "All" is the smallest number of solutions that a question has.

    Args:
        records: see :class:`BestOfN`.
        scores: for each record the scores of its steps.
        aggregate: how a solution's score is made from its steps' (see
            :func:`gradatim.scorers.aggregation.solution_score`).
        resamples: of the intervals.
        seed: of the intervals.

    Raises:
        GradatimError: if a step has no score, or a vote is to be weighted by a negative one.
    """
    check_scores(records, scores)
    by_question = samples_by_question(records, scores, aggregate)
    questions = list(by_question.values())
    whole = min(map(len, questions))
    sizes = sorted({2**power for power in range(whole.bit_length()) if 2**power <= whole} | {whole})

    def mean(values: Sequence[float]) -> Estimate:
        return bootstrap_mean(values, resamples=resamples, seed=seed)

    def difference(before: Sequence[float], after: Sequence[float]) -> Estimate:
        return bootstrap_difference(before, after, resamples=resamples, seed=seed)

    best = {n: [best_of_n(samples, n) for samples in questions] for n in sizes}
    answered = any(sample.answer is not None for samples in questions for sample in samples)
    weighted = [weighted_majority(s, len(s)) for s in questions] if answered else []
    plain = [majority(s, len(s)) for s in questions] if answered else []
    by_author = _by_author(records)
    others = {"one by lot": best[1], **by_author}
    differences = {f"best of {whole} minus {name}": difference(part, best[whole]) for name, part in others.items()}
    if answered:
        differences["score-weighted minus plain majority"] = difference(plain, weighted)
    return BestOfNResult(
        best_of={n: mean(right) for n, right in best.items()},
        weighted_majority=mean(weighted) if answered else None,
        majority=mean(plain) if answered else None,
        any_right=mean([float(any(sample.correct for sample in samples)) for samples in questions]),
        authors={author: mean(right) for author, right in by_author.items()},
        differences=differences if whole > 1 else {},
        outcome_auc=named_aucs(
            (
                (name, record.question, bool(record.correct), solution_score(values, aggregate))
                for record, values in zip(records, scores, strict=True)
                for name in ("all", record.author)
                if name == "all" or name in by_author
            ),
            resamples=AREA_RESAMPLES,
            seed=seed,
        ),
    )


def _by_author(records: Sequence[StepRecord]) -> dict[str, list[float]]:
    """For each author that answered every question once, whether the answers are right."""
    questions = {
        record.question: place for place, record in enumerate({each.question: each for each in records}.values())
    }
    found: dict[str, dict[int, float]] = {}
    for record in records:
        if record.author is not None:
            found.setdefault(record.author, {})[questions[record.question]] = float(bool(record.correct))
    return {
        author: [part[place] for place in range(len(questions))]
        for author, part in found.items()
        if len(part) == len(questions)
    }


def samples_by_question(
    records: Sequence[StepRecord], scores: Sequence[Sequence[float]], aggregate: Aggregate
) -> dict[str, list[Sample]]:
    """The scored solutions of each question."""
    questions: dict[str, list[Sample]] = {}
    for record, values in zip(records, scores, strict=True):
        sample = Sample(float(bool(record.correct)), record.answer, solution_score(values, aggregate))
        questions.setdefault(record.question, []).append(sample)
    return questions
