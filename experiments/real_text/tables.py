"""The results as tables: means over seeds, with the mean ends of the intervals over problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.real_text.settings import MAIN
from gradatim.evaluation.page import markdown_table

_AGGREGATE = {"outcome, synthetic errors only": "last", "language model likelihood": "mean"}
WITHOUT_STEP_SCORES = "fewer steps"
_DEFAULT_AGGREGATE = "min"  # chosen before any result was seen

Result = Mapping[str, Any]


def tables(results: Result) -> str:
    """All tables, with headings, as markdown."""
    settings: dict[str, list[Result]] = {}
    for run in results["runs"]:
        settings.setdefault(run["name"], []).append(run)
    rows = settings | {name: [result] for name, result in results["baselines"].items()}
    step_rows = {name: runs for name, runs in rows.items() if name != WITHOUT_STEP_SCORES}
    sections = {
        "Training": _training_table(results, settings),
        "Right and wrong final answers of real models (AUC)": _outcome_table(rows),
        "Aggregation of the main setting's step scores": _aggregation_table(settings[MAIN]),
        "Choosing among the four models' solutions (accuracy, %)": _selection_table(results, rows),
        "Wrong calculations in real models' solutions": _arithmetic_table(step_rows),
        "Synthetic errors in test problems": _synthetic_table(step_rows),
        "Synthetic errors by kind: the first wrong step below the right one at its place, %": _kind_table(step_rows),
        "PRMBench": _benchmark_table(step_rows),
        "PRMBench by class (PRMScore)": _class_table(step_rows),
    }
    return "\n\n".join(f"## {title}\n\n{table}" for title, table in sections.items()) + "\n"


def _training_table(results: Result, settings: Mapping[str, Sequence[Result]]) -> str:
    model = results["language_model"]
    rows = [
        [
            name,
            str(len(runs)),
            f"{sum(runs[0]['training']['tokens'].values()):,}",
            f"{runs[0]['training']['labels']:,}",
            f"{runs[0]['training']['right_labels']:.0%}",
            str(runs[0]["training"]["updates"]),
        ]
        for name, runs in settings.items()
    ]
    table = markdown_table(["reward model", "seeds", "tokens", "labels", "labelled right", "updates"], rows)
    line = (
        f"Language model: {model['parameters']:,} parameters, {results['settings']['language_model']['tokens']:,} "
        f"tokens; on the reference solutions of the test problems perplexity {model['perplexity']:.2f} per token, "
        f"{model['bits_per_byte']:.3f} bits per byte."
    )
    return f"{line}\n\n{table}"


def _outcome_table(rows: Mapping[str, Sequence[Result]]) -> str:
    columns = list(next(iter(rows.values()))[0]["outcome_auc"][_DEFAULT_AGGREGATE])
    body = []
    for name, runs in rows.items():
        cells = [_cell(runs, "outcome_auc", _aggregate(name), column) for column in columns]
        body.append([name, _by_seed(runs, "outcome_auc", _aggregate(name), columns[0], "value"), *cells])
    return markdown_table(["", f"{columns[0]}, by seed", *columns], body)


def _aggregation_table(runs: Sequence[Result]) -> str:
    body = [
        [
            aggregate,
            _cell(runs, "outcome_auc", aggregate, "all four"),
            _cell(runs, "selection", aggregate, "best by score", percent=True),
        ]
        for aggregate in runs[0]["outcome_auc"]
    ]
    return markdown_table(["aggregate", "AUC", "best of 4"], body)


def _selection_table(results: Result, rows: Mapping[str, Sequence[Result]]) -> str:
    without = [[name, _estimate(value, percent=True)] for name, value in results["without_scores"].items()]
    models = list(results["runs"][0]["outcome_auc"][_DEFAULT_AGGREGATE])[1:]
    best = max(models, key=lambda model: float(results["without_scores"][model]["value"]))
    names = [
        "best by score",
        "best by score minus random choice",
        f"best by score minus {best}",
        "score-weighted majority",
        "score-weighted minus majority",
    ]
    body = [
        [name, *(_cell(runs, "selection", _aggregate(name), choice, percent=True) for choice in names)]
        for name, runs in rows.items()
    ]
    return markdown_table(["without scores", "accuracy"], without) + "\n\n" + markdown_table(["", *names], body)


def _arithmetic_table(rows: Mapping[str, Sequence[Result]]) -> str:
    first = next(iter(rows.values()))[0]["arithmetic"]
    body = [
        [
            name,
            _cell(runs, "arithmetic", "auc"),
            *(_mean(runs, "arithmetic", measure) for measure in ("f1", "precision", "recall")),
            _cell(runs, "arithmetic", "lowest_step_is_first_error", percent=True),
        ]
        for name, runs in rows.items()
    ]
    line = (
        f"{first['wrong_steps']} of {first['steps']:,} annotated steps are wrong; calling every step wrong has F1 "
        f"{first['f1_of_calling_all_wrong']:.3f}. Of the annotated steps of a solution with an error, one drawn by lot "
        f"is the first wrong one in {100 * first['lowest_step_by_chance']:.1f} %."
    )
    header = ["", "AUC", "F1", "precision", "recall", "lowest step is the first error, %"]
    return f"{line}\n\n{markdown_table(header, body)}"


def _synthetic_table(rows: Mapping[str, Sequence[Result]]) -> str:
    first = next(iter(rows.values()))[0]["synthetic"]
    body = [
        [
            name,
            _cell(runs, "synthetic", "sibling_accuracy", "all", percent=True),
            _cell(runs, "synthetic", "auc", "all"),
            _mean(runs, "synthetic", "first_error", "f1"),
            _mean(runs, "synthetic", "lowest_step_is_first_error"),
        ]
        for name, runs in rows.items()
    ]
    line = (
        f"{first['solutions']:,} solutions, about a quarter of them without an error. A step drawn by lot is the first "
        f"wrong one of a solution with an error in {100 * first['lowest_step_by_chance']:.1f} %."
    )
    header = ["", "wrong below right, %", "AUC of steps", "first-error F1", "lowest step is the first error (share)"]
    return f"{line}\n\n{markdown_table(header, body)}"


def _kind_table(rows: Mapping[str, Sequence[Result]]) -> str:
    first = next(iter(rows.values()))[0]["synthetic"]["sibling_accuracy"]
    body = [
        [f"{kind} ({first[kind]['pairs']} pairs)"]
        + [_cell(runs, "synthetic", "sibling_accuracy", kind, percent=True) for runs in rows.values()]
        for kind in first
    ]
    return markdown_table(["kind", *rows], body)


def _benchmark_table(rows: Mapping[str, Sequence[Result]]) -> str:
    body = [
        [
            name,
            _mean(runs, "benchmark", "prm_score"),
            _by_seed(runs, "benchmark", "prm_score"),
            *(_mean(runs, "benchmark", "total", measure) for measure in ("f1", "negative_f1", "total_step_acc")),
            _cell(runs, "benchmark", "auc", "all"),
        ]
        for name, runs in rows.items()
    ]
    all_right = next(iter(rows.values()))[0]["benchmark"]["prm_score_of_calling_all_right"]
    header = ["", "PRMScore", "by seed", "F1", "negative F1", "step accuracy", "AUC of steps"]
    return f"Calling every step right has PRMScore {all_right:.3f}.\n\n{markdown_table(header, body)}"


def _class_table(rows: Mapping[str, Sequence[Result]]) -> str:
    classes = [name for name in next(iter(rows.values()))[0]["benchmark"]["class_scores"] if name != "correct"]
    body = [[name, *(_mean(runs, "benchmark", "class_scores", name) for runs in rows.values())] for name in classes]
    return markdown_table(["class", *rows], body)


def _aggregate(name: str) -> str:
    return _AGGREGATE.get(name, _DEFAULT_AGGREGATE)


def _values(runs: Sequence[Result], keys: Sequence[str]) -> list[Any]:
    """What stands under the keys in the results of each seed, undefined values left out."""
    values: list[Any] = list(runs)
    for key in keys:
        values = [value[key] for value in values if value is not None]
    return [value for value in values if value is not None]


def _cell(runs: Sequence[Result], *keys: str, percent: bool = False) -> str:
    values = _values(runs, keys)
    if not values:
        return "undefined"
    ends = ("value", "low", "high") if all(value["low"] is not None for value in values) else ("value",)
    return _estimate({end: sum(value[end] for value in values) / len(values) for end in ends}, percent=percent)


def _estimate(value: Mapping[str, float], *, percent: bool = False) -> str:
    """A figure with its interval; what rests on a single problem has none."""
    scale, spec = (100, ".1f") if percent else (1, ".3f")
    figures = [
        format(scale * figure, spec) for figure in map(value.get, ("value", "low", "high")) if figure is not None
    ]
    return figures[0] if len(figures) < 3 else f"{figures[0]} [{figures[1]}, {figures[2]}]"


def _mean(runs: Sequence[Result], *keys: str) -> str:
    values = _values(runs, keys)
    return f"{sum(values) / len(values):.3f}" if values else "undefined"


def _by_seed(runs: Sequence[Result], *keys: str) -> str:
    return " ".join(f"{value:.3f}" for value in _values(runs, keys))
