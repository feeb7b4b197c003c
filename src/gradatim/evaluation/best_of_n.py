"""Best-of-n: how good is the solution that a scorer picks among sampled ones?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradatim.evaluation.benchmarks.benchmark_rows import Row, Source, read_rows
from gradatim.evaluation.bootstrap import Estimate, bootstrap_mean
from gradatim.evaluation.metrics import Sample, best_of_n, majority, weighted_majority
from gradatim.evaluation.step_records import StepRecord, check_scores
from gradatim.search.selection import Aggregate, solution_score
from gradatim.tasks.number_answers import extract_answer


@dataclass(frozen=True, slots=True)
class BestOfNResult:
    """What selection by a scorer reaches, beside selection without one; all as shares, intervals over questions.

    Attributes:
        best_of: accuracy of the highest-scored of so many solutions; of 1, the share of right solutions.
        weighted_majority: accuracy of the answer with the highest sum of scores among all solutions.
        majority: accuracy of the most frequent answer.
        any_right: share of the questions with a right solution: the most that any selection can reach.
    """

    best_of: dict[int, Estimate]
    weighted_majority: Estimate | None
    majority: Estimate | None
    any_right: Estimate

    def figures(self) -> dict[str, float | None]:
        """What tables show, in percent."""
        named: dict[str, Estimate | None] = {f"best of {n}": estimate for n, estimate in self.best_of.items()}
        named |= {
            "score-weighted majority": self.weighted_majority,
            "majority, without scores": self.majority,
            "any solution right": self.any_right,
        }
        return {name: None if estimate is None else 100 * estimate.value for name, estimate in named.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "best_of": {str(n): estimate.to_json() for n, estimate in self.best_of.items()},
            "weighted_majority": None if self.weighted_majority is None else self.weighted_majority.to_json(),
            "majority": None if self.majority is None else self.majority.to_json(),
            "any_right": self.any_right.to_json(),
        }


def read_best_of_n(sources: Sequence[Source]) -> list[StepRecord]:
    """Records with a ``question`` and its sampled solutions.

    The solutions stand in a list ``solutions``, each with ``steps`` (or ``solution``: the text, a step a line),
    ``correct`` and perhaps ``answer``. Or, as in GSM8K's ``model_solutions.jsonl``, they are fields of any names, each
    with ``solution`` and ``is_correct``; answers are then read from the texts.

    Raises:
        GradatimError: if a source cannot be read, or a record lacks a field or has no solutions.
    """
    return [record for row in read_rows(sources) for record in _records(row)]


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
                correct=solution.boolean("is_correct"), answer=extract_answer(text),
            )
        )  # fmt: skip
    return records


def solution_records(row: Row, group: str = "best-of-n") -> list[StepRecord]:
    """The sampled solutions of a record in the list layout."""
    problem, name = row.text("question"), row.name("id", "idx")
    return [
        StepRecord(
            f"{name}/{solution.number}", problem, steps, (None,) * len(steps), group, row.place,
            correct=solution.boolean("correct"), answer=_answer(solution.values.get("answer")),
        )
        for solution in row.rows("solutions")
        for steps in [_steps(solution)]
    ]  # fmt: skip


def _steps(solution: Row) -> tuple[str, ...]:
    return solution.texts("steps") if "steps" in solution.values else _lines(solution.text("solution"))


def _answer(value: object) -> str | None:
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
        records: see :func:`read_best_of_n`.
        scores: for each record the scores of its steps.
        aggregate: how a solution's score is made from its steps' (see
            :func:`gradatim.search.selection.solution_score`).
        resamples: of the intervals.
        seed: of the intervals.

    Raises:
        GradatimError: if a step has no score, or a vote is to be weighted by a negative one.
    """
    check_scores(records, scores)
    questions = list(samples_by_question(records, scores, aggregate).values())
    whole = min(map(len, questions))
    sizes = sorted({2**power for power in range(whole.bit_length()) if 2**power <= whole} | {whole})

    def mean(values: Sequence[float]) -> Estimate:
        return bootstrap_mean(values, resamples=resamples, seed=seed)

    answered = any(sample.answer is not None for samples in questions for sample in samples)
    return BestOfNResult(
        best_of={n: mean([best_of_n(samples, n) for samples in questions]) for n in sizes},
        weighted_majority=mean([weighted_majority(s, len(s)) for s in questions]) if answered else None,
        majority=mean([majority(s, len(s)) for s in questions]) if answered else None,
        any_right=mean([float(any(sample.correct for sample in samples)) for samples in questions]),
    )


def samples_by_question(
    records: Sequence[StepRecord], scores: Sequence[Sequence[float]], aggregate: Aggregate
) -> dict[str, list[Sample]]:
    """The scored solutions of each question."""
    questions: dict[str, list[Sample]] = {}
    for record, values in zip(records, scores, strict=True):
        sample = Sample(float(bool(record.correct)), record.answer, solution_score(values, aggregate))
        questions.setdefault(record.question, []).append(sample)
    return questions
