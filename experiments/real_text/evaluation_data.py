"""What reward models are judged on, and all their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from experiments.real_text.documents import (
    ModelSolutions,
    Part,
    Solution,
    gsm8k_solutions,
    model_solutions,
    prmbench_records,
    record_solution,
)
from experiments.real_text.error_injection import corrupted_solutions
from experiments.real_text.evaluation import (
    AGGREGATES,
    arithmetic_errors,
    benchmark_threshold,
    first_error_threshold,
    outcome_auc,
    process_benchmark,
    scored_problems,
    selection,
    synthetic_errors,
)
from experiments.real_text.scoring import StepScores
from gradatim.evaluation.step_records import StepRecord

Scored = Callable[[Sequence[Solution]], StepScores]

_CORRUPTIONS = 3
_SEED = 1_000_003  # of the errors that are evaluated; training seeds are small numbers


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """Held-out solutions.

    Attributes:
        problems: real models' solutions of the GSM8K test problems.
        synthetic: reference solutions and errors made in them, by part (``"validation"``, ``"test"``).
        benchmark: PRMBench's records, by part.
    """

    problems: list[ModelSolutions]
    synthetic: dict[str, list[Solution]]
    benchmark: dict[str, list[StepRecord]]

    @classmethod
    def read(cls, data: Path, real_problems: int, synthetic_problems: int) -> EvaluationData:
        return cls(
            problems=model_solutions(data)[:real_problems],
            synthetic={
                "validation": evaluated_errors(data, "validation", synthetic_problems),
                "test": evaluated_errors(data, "test", synthetic_problems),
            },
            benchmark={
                "validation": prmbench_records(data, "validation"),
                "test": prmbench_records(data, "test"),
            },
        )


def evaluated_errors(data: Path, part: Part, problems: int) -> list[Solution]:
    """The first reference solutions of a part, each followed by wrong ones made of it; always the same."""
    random = Random(_SEED)
    solutions: list[Solution] = []
    for reference in gsm8k_solutions(data, part)[:problems]:
        solutions += [reference, *corrupted_solutions(reference, _CORRUPTIONS, random)]
    return solutions


def score_everything(data: EvaluationData, scored: Scored) -> dict[str, StepScores]:
    """The step scores of all held-out solutions, by set."""
    real = [solution for problem in data.problems for solution in problem.solutions.values()]
    sets: dict[str, Sequence[Solution]] = {"real": real}
    for part in ("validation", "test"):
        sets[f"synthetic {part}"] = data.synthetic[part]
        sets[f"benchmark {part}"] = [record_solution(record) for record in data.benchmark[part]]
    return {name: scored(solutions) for name, solutions in sets.items()}


def judge(data: EvaluationData, scores: dict[str, StepScores], resamples: int) -> dict[str, Any]:
    """All numbers of one set of scores. Thresholds come from held-out training problems."""
    problems = scored_problems(data.problems, scores["real"])
    threshold = first_error_threshold(data.synthetic["validation"], scores["synthetic validation"])
    benchmark = benchmark_threshold(data.benchmark["validation"], scores["benchmark validation"])
    return {
        "thresholds": {"synthetic": threshold, "benchmark": benchmark},
        "outcome_auc": {name: outcome_auc(problems, name, resamples) for name in AGGREGATES},
        "selection": {name: selection(problems, name) for name in AGGREGATES},
        "arithmetic": arithmetic_errors(problems, threshold, resamples),
        "synthetic": synthetic_errors(data.synthetic["test"], scores["synthetic test"], threshold, resamples),
        "benchmark": process_benchmark(data.benchmark["test"], scores["benchmark test"], benchmark, resamples),
    }
