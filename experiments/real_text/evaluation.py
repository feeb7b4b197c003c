"""What step scores are worth on held-out solutions: plain numbers from plain scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from experiments.real_text.documents import ModelSolutions, Solution
from experiments.real_text.scoring import StepScores
from gradatim.evaluation import (
    Estimate,
    Sample,
    auc,
    best_of_n,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_ratio,
    bootstrap_statistic,
    first_below,
    first_error_f1,
    majority,
    weighted_majority,
)
from gradatim.evaluation.baselines import constant_scores
from gradatim.evaluation.benchmarks.prmbench import prmbench
from gradatim.evaluation.step_records import StepRecord
from gradatim.search.selection import Aggregate, solution_score
from gradatim.tasks.calculator import check_annotations
from gradatim.tasks.gsm8k import extract_answer

AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)

Cluster = tuple[Sequence[float], Sequence[float]]  # labels and scores of one problem


@dataclass(frozen=True, slots=True)
class ScoredProblem:
    """One problem's solutions by model, with the scores of their steps."""

    problem: ModelSolutions
    scores: dict[str, list[float]]

    def totals(self, aggregate: Aggregate) -> dict[str, float]:
        return {model: solution_score(scores, aggregate) for model, scores in self.scores.items()}


def scored_problems(problems: Sequence[ModelSolutions], scores: StepScores) -> list[ScoredProblem]:
    """Give each problem the scores of its solutions, which come in the problems' order."""
    rest = iter(scores)
    return [ScoredProblem(problem, {model: next(rest) for model in problem.solutions}) for problem in problems]


def clustered_auc(clusters: Sequence[Cluster], resamples: int) -> dict[str, float] | None:
    """AUC over all solutions or steps, its interval by resampling problems; ``None`` where all labels are alike."""
    arrays = [(np.asarray(labels, dtype=bool), np.asarray(scores, dtype=float)) for labels, scores in clusters]

    def of(indices: npt.NDArray[np.intp]) -> float | None:
        return auc(np.concatenate([arrays[i][0] for i in indices]), np.concatenate([arrays[i][1] for i in indices]))

    estimate = bootstrap_statistic(of, len(arrays), resamples=resamples) if arrays else None
    return None if estimate is None else estimate.to_json()


def outcome_auc(problems: Sequence[ScoredProblem], aggregate: Aggregate, resamples: int) -> dict[str, Any]:
    """How well a solution's score tells right from wrong final answers, of each model and of all together."""
    models = list(problems[0].scores)
    totals = [problem.totals(aggregate) for problem in problems]

    def clusters(chosen: Sequence[str]) -> list[Cluster]:
        return [
            ([problem.problem.solutions[model].outcome or 0.0 for model in chosen], [total[model] for model in chosen])
            for problem, total in zip(problems, totals, strict=True)
        ]

    return {
        "all four": clustered_auc(clusters(models), resamples),
        **{model: clustered_auc(clusters([model]), resamples) for model in models},
    }


def selection(problems: Sequence[ScoredProblem], aggregate: Aggregate) -> dict[str, dict[str, float]]:
    """Accuracy of the solution that the scores choose among the models', and paired differences to other choices."""
    chosen, weighted = [], []
    for problem in problems:
        samples = _samples(problem.problem, problem.totals(aggregate))
        chosen.append(best_of_n(samples, len(samples)))
        weighted.append(weighted_majority(samples, len(samples)))
    others = _unscored_rewards([problem.problem for problem in problems])
    result: dict[str, Estimate] = {
        "best by score": bootstrap_mean(chosen),
        "score-weighted majority": bootstrap_mean(weighted),
        "score-weighted minus majority": bootstrap_difference(others["majority"], weighted),
    }
    for name, rewards in others.items():
        result[f"best by score minus {name}"] = bootstrap_difference(rewards, chosen)
    return {name: estimate.to_json() for name, estimate in result.items()}


def unscored_selection(problems: Sequence[ModelSolutions]) -> dict[str, dict[str, float]]:
    """Accuracy of choices that need no scores: each model, chance, the majority, and the oracle."""
    return {name: bootstrap_mean(rewards).to_json() for name, rewards in _unscored_rewards(problems).items()}


def arithmetic_errors(problems: Sequence[ScoredProblem], threshold: float, resamples: int) -> dict[str, Any]:
    """How well step scores find wrong calculations, over the steps that have annotations at all."""
    clusters: list[Cluster] = []
    found, chance = [], []
    for problem in problems:
        labels: list[float] = []
        values: list[float] = []
        for model, solution in problem.problem.solutions.items():
            right = [_arithmetic(step) for step in solution.steps]
            judged = [
                (label, score) for label, score in zip(right, problem.scores[model], strict=True) if label in (0, 1)
            ]
            labels += [float(label or 0) for label, _ in judged]
            values += [score for _, score in judged]
            if 0.0 in right:
                scores = [score for _, score in judged]
                found.append(float(np.argmin(scores) == [label for label, _ in judged].index(0.0)))
                chance.append(1 / len(scores))
        clusters.append((labels, values))
    wrong = np.concatenate([1 - np.asarray(labels) for labels, _ in clusters]).astype(bool)
    called = np.concatenate([np.asarray(scores) for _, scores in clusters]) < threshold
    hits = int((wrong & called).sum())
    return {
        "auc": clustered_auc([cluster for cluster in clusters if cluster[0]], resamples),
        "steps": len(wrong),
        "wrong_steps": int(wrong.sum()),
        "precision": hits / max(1, int(called.sum())),
        "recall": hits / max(1, int(wrong.sum())),
        "f1": 2 * hits / max(1, int(called.sum()) + int(wrong.sum())),
        "f1_of_calling_all_wrong": 2 * wrong.mean() / (1 + wrong.mean()),
        "lowest_step_is_first_error": bootstrap_mean(found).to_json() if found else None,
        "lowest_step_by_chance": float(np.mean(chance)) if chance else None,
    }


def synthetic_errors(
    solutions: Sequence[Solution], scores: StepScores, threshold: float, resamples: int
) -> dict[str, Any]:
    """Step scores against exact labels: all steps, by kind of error, and where the first error is."""
    clusters: dict[str, dict[str, Cluster]] = {}
    predicted, truth = [], []
    for solution, values in zip(solutions, scores, strict=True):
        for name in ("all", solution.source):
            labels, found = clusters.setdefault(name, {}).setdefault(solution.question, ([], []))
            clusters[name][solution.question] = ([*labels, *solution.labels], [*found, *values])
        predicted.append(first_below(values, threshold))
        truth.append(_first_error(solution))
    wrong = [(values, true) for values, true in zip(scores, truth, strict=True) if true is not None]
    return {
        "auc": {
            name: clustered_auc(list(problems.values()), resamples)
            for name, problems in clusters.items()
            if name != "reference"
        },
        "sibling_accuracy": sibling_accuracy(solutions, scores),
        "first_error": first_error_f1(predicted, truth).to_json(),
        "lowest_step_is_first_error": float(np.mean([np.argmin(values) == true for values, true in wrong])),
        "lowest_step_by_chance": float(np.mean([1 / len(values) for values, _ in wrong])),
        "solutions": len(solutions),
    }


def sibling_accuracy(solutions: Sequence[Solution], scores: StepScores) -> dict[str, dict[str, float]]:
    """How often the first wrong step scores below the right step at the same place, by kind of error; ties are half.

    Both follow the same steps and are lines of the same sort (a calculation, or the final answer), so neither the
    place nor the beginning tells them apart. Chance is one half.

    Args:
        solutions: wrong ones after the reference solution that they were made of.
        scores: of their steps.
    """
    wins: dict[str, dict[str, list[float]]] = {}
    reference, right = solutions[0], scores[0]
    for solution, values in zip(solutions, scores, strict=True):
        if (place := _first_error(solution)) is None:
            reference, right = solution, values
            continue
        siblings = solution.steps[:place] == reference.steps[:place]
        if siblings and _is_final(solution.steps[place]) is _is_final(reference.steps[place]):
            win = 0.5 if values[place] == right[place] else float(values[place] < right[place])
            for name in ("all", solution.source):
                wins.setdefault(name, {}).setdefault(solution.question, []).append(win)
    return {
        name: bootstrap_ratio(
            [sum(part) for part in problems.values()], [len(part) for part in problems.values()]
        ).to_json()
        | {"pairs": sum(map(len, problems.values()))}
        for name, problems in wins.items()
    }


def process_benchmark(records: Sequence[StepRecord], scores: StepScores, threshold: float, resamples: int) -> Any:
    """PRMBench's numbers at a threshold that was chosen on held-out training questions, and the AUC of each class."""
    result = prmbench(records, scores, threshold)
    return {
        **result.to_json(),
        "prm_score_of_calling_all_right": prmbench(records, constant_scores(records)).total.score,
        "class_scores": {name: result.class_score(name) for name in result.classes},
        "auc": {
            name: clustered_auc(_record_clusters(records, scores, name), resamples) for name in ("all", *result.classes)
        },
    }


def benchmark_threshold(records: Sequence[StepRecord], scores: StepScores) -> float:
    """The threshold of the highest PRMScore."""
    return _best_threshold(scores, lambda threshold: prmbench(records, scores, threshold).total.score)


def first_error_threshold(solutions: Sequence[Solution], scores: StepScores) -> float:
    """The threshold of the highest F1 of finding first errors."""
    truth = [_first_error(solution) for solution in solutions]

    def f1(threshold: float) -> float:
        return first_error_f1([first_below(values, threshold) for values in scores], truth).f1 or 0.0

    return _best_threshold(scores, f1)


def _best_threshold(scores: StepScores, quality: Callable[[float], float]) -> float:
    """The best of 99 quantiles of the scores."""
    values = np.concatenate([np.asarray(part) for part in scores])
    return max(map(float, np.unique(np.quantile(values, np.linspace(0.01, 0.99, 99)))), key=quality)


def _is_final(step: str) -> bool:
    return step.startswith("####")


def _first_error(solution: Solution) -> int | None:
    return solution.labels.index(0.0) if 0.0 in solution.labels else None


def _record_clusters(records: Sequence[StepRecord], scores: StepScores, name: str) -> list[Cluster]:
    clusters: dict[str, Cluster] = {}
    for record, values in zip(records, scores, strict=True):
        if record.group == name or (name == "all" and record.group != "correct"):
            labels, found = clusters.get(record.question, ([], []))
            clusters[record.question] = ([*labels, *(float(bool(label)) for label in record.labels)], [*found, *values])
    return list(clusters.values())


def _unscored_rewards(problems: Sequence[ModelSolutions]) -> dict[str, list[float]]:
    samples = [_samples(problem, {}) for problem in problems]
    choices: dict[str, Callable[[list[Sample]], float]] = {
        "random choice": lambda part: sum(bool(sample.correct) for sample in part) / len(part),
        "majority": lambda part: majority(part, len(part)),
        "oracle": lambda part: float(any(sample.correct for sample in part)),
    }
    return {
        **{model: [problem.solutions[model].outcome or 0.0 for problem in problems] for model in problems[0].solutions},
        **{name: [choose(part) for part in samples] for name, choose in choices.items()},
    }


def _samples(problem: ModelSolutions, totals: dict[str, float]) -> list[Sample]:
    return [
        Sample(solution.outcome or 0.0, extract_answer("".join(solution.steps)), totals.get(model, 0.0))
        for model, solution in problem.solutions.items()
    ]


def _arithmetic(step: str) -> float | None:
    """Whether a step's calculations are right; ``None`` for a step without any."""
    findings = [annotation.finding for annotation in check_annotations(step)]
    return None if not findings else float(not any(finding.is_error for finding in findings))
