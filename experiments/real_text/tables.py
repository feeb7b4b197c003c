"""The results as tables: means over seeds, with the mean ends of the intervals over problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradatim.evaluation.page import markdown_table

_AGGREGATE = {"outcome, synthetic errors only": "last", "language model likelihood": "mean"}
_DEFAULT_AGGREGATE = "min"  # chosen before any result was seen
_PRMBENCH, _SYNTHETIC, _CALCULATIONS, _SOLUTIONS = range(4)  # the recipe's benchmarks, the last one by aggregate

Result = Mapping[str, Any]


def tables(results: Result) -> str:
    """All tables, with headings, as markdown."""
    settings: dict[str, Sequence[Result]] = results["runs"]
    rows = {name: [_scorers(run) for run in runs] for name, runs in settings.items()}
    rows["language model likelihood"] = [_scorers(results["likelihood"])]
    main = next(iter(settings.values()))[0]
    for name in ("random scores", "fewer steps"):
        rows[name] = [[benchmark["results"][name] for benchmark in main["benchmarks"]]]
    steps = {name: runs for name, runs in rows.items() if name != "fewer steps"}
    right = [benchmark["results"]["constant scores"] for benchmark in main["benchmarks"]]
    sections = {
        "Training": _training(results["language_model"], settings),
        "Right and wrong final answers of real models (AUC)": _outcomes(rows),
        "Aggregation of the main setting's step scores": _aggregation(next(iter(rows.values()))),
        "Choosing among the four models' solutions (accuracy, %)": _selection(rows),
        "Wrong calculations in real models' solutions": _labelled(steps, _CALCULATIONS),
        "Synthetic errors in test problems": _labelled(steps, _SYNTHETIC),
        "Synthetic errors by kind: the first wrong step below the right one at its place, %": _kinds(steps),
        "PRMBench": f"Calling every step right has PRMScore {right[_PRMBENCH]['prm_score']:.3f}.\n\n{_prmbench(steps)}",
        "PRMBench by class (PRMScore)": _classes(steps),
    }
    return "\n\n".join(f"## {title}\n\n{table}" for title, table in sections.items()) + "\n"


def _scorers(run: Result) -> list[Result]:
    """What the run's own scorer reached on each benchmark."""
    return [next(iter(benchmark["results"].values())) for benchmark in run["benchmarks"]]


def _training(model: Result, settings: Mapping[str, Sequence[Result]]) -> str:
    body = [
        [name, str(len(runs)), f"{told['tokens']:,}", f"{told['labels']:,}", f"{told['right']:.0%}",
         str(runs[0]["training"]["updates"])]
        for name, runs in settings.items()
        for told in [runs[0]["prepared"]]
    ]  # fmt: skip
    header = ["reward model", "seeds", "tokens", "labels", "labelled right", "updates"]
    held_out = model["held_out"]
    line = (
        f"Language model: {model['parameters']:,} parameters, {model['steps']:,} updates; on the reference solutions "
        f"of the test problems perplexity {held_out['perplexity']:.2f} per token, {held_out['bits_per_byte']:.3f} bits "
        "per byte."
    )
    return f"{line}\n\n{markdown_table(header, body)}"


def _outcomes(rows: Mapping[str, Sequence[Any]]) -> str:
    columns = list(next(iter(rows.values()))[0][_SOLUTIONS]["outcome_auc"])
    body = []
    for name, runs in rows.items():
        found = [run[_place(name)]["outcome_auc"] for run in runs]
        body.append([name, _by_seed(found, "all", "value"), *(_cell(found, column) for column in columns)])
    return markdown_table(["", "all, by seed", *columns], body)


def _aggregation(runs: Sequence[Any]) -> str:
    body = []
    for aggregate in _AGGREGATES:
        found = [run[_SOLUTIONS + _AGGREGATES.index(aggregate)] for run in runs]
        best = _cell([_best(each) for each in found], percent=True)
        body.append([aggregate, _cell(found, "outcome_auc", "all"), best])
    return markdown_table(["aggregate", "AUC", "best of 4"], body)


def _selection(rows: Mapping[str, Sequence[Any]]) -> str:
    first = next(iter(rows.values()))[0][_SOLUTIONS]
    without = {**first["authors"], "one by lot": first["best_of"]["1"], "majority": first["majority"]}
    without["oracle"] = first["any_right"]
    strongest = max(first["authors"], key=lambda author: float(first["authors"][author]["value"]))
    names = [name for name in first["differences"] if name.endswith((" one by lot", strongest, " majority"))]
    body = []
    for name, runs in rows.items():
        found = [run[_place(name)] for run in runs]
        best = [_cell([_best(each) for each in found], percent=True)]
        best += [_cell(found, "differences", each, percent=True) for each in names]
        body.append([name, *best, _cell(found, "weighted_majority", percent=True)])
    header = ["", f"best of {max(map(int, first['best_of']))}", *names, "score-weighted majority"]
    plain = markdown_table(
        ["without scores", "accuracy"], [[name, _cell([value], percent=True)] for name, value in without.items()]
    )
    return f"{plain}\n\n{markdown_table(header, body)}"


def _labelled(rows: Mapping[str, Sequence[Any]], place: int) -> str:
    first = next(iter(rows.values()))[0][place]
    body = []
    for name, runs in rows.items():
        found = [run[place] for run in runs]
        body.append(
            [
                name,
                _cell(found, "siblings", "all", percent=True) if "all" in first["siblings"] else "undefined",
                _cell(found, "auc", "all"),
                *(_mean(found, measure) for measure in ("f1", "precision", "recall")),
                _mean(found, "first_error", "f1"),
                _cell(found, "lowest_is_first_error", percent=True),
            ]
        )
    chance = 100 * (first["lowest_by_chance"] or 0.0)
    line = (
        f"{first['solutions']:,} solutions; {first['wrong_steps']:,} of {first['steps']:,} labelled steps are wrong, "
        f"and calling every step wrong has F1 {first['f1_of_calling_all_wrong']:.3f}. Of the labelled steps of a "
        f"solution with an error, one drawn by lot is the first wrong one in {chance:.1f} %."
    )
    header = ["", "wrong below right, %", "AUC of steps", "F1", "precision", "recall", "first-error F1"]
    return f"{line}\n\n{markdown_table([*header, 'lowest step is the first error, %'], body)}"


def _kinds(rows: Mapping[str, Sequence[Any]]) -> str:
    first = next(iter(rows.values()))[0][_SYNTHETIC]
    body = [
        [f"{kind} ({pairs} pairs)"]
        + [_cell([run[_SYNTHETIC] for run in runs], "siblings", kind, percent=True) for runs in rows.values()]
        for kind, pairs in first["pairs"].items()
    ]
    return markdown_table(["kind", *rows], body)


def _prmbench(rows: Mapping[str, Sequence[Any]]) -> str:
    body = []
    for name, runs in rows.items():
        found = [run[_PRMBENCH] for run in runs]
        measures = [_mean(found, "total", measure) for measure in ("f1", "negative_f1", "total_step_acc")]
        score = [_mean(found, "prm_score"), _by_seed(found, "prm_score")]
        body.append([name, *score, *measures, _cell(found, "auc")])
    header = ["", "PRMScore", "by seed", "F1", "negative F1", "step accuracy", "AUC of steps"]
    return markdown_table(header, body)


def _classes(rows: Mapping[str, Sequence[Any]]) -> str:
    classes = [name for name in next(iter(rows.values()))[0][_PRMBENCH]["classes"] if name != "correct"]
    body = [
        [name, *(_mean([run[_PRMBENCH] for run in runs], "classes", name, "prm_score") for runs in rows.values())]
        for name in classes
    ]
    return markdown_table(["class", *rows], body)


_AGGREGATES = ("min", "last", "product", "mean")


def _place(name: str) -> int:
    return _SOLUTIONS + _AGGREGATES.index(_AGGREGATE.get(name, _DEFAULT_AGGREGATE))


def _best(result: Result) -> Any:
    """What the highest-scored of all solutions reaches."""
    return result["best_of"][max(result["best_of"], key=int)]


def _values(runs: Sequence[Any], keys: Sequence[str]) -> list[Any]:
    """What stands under the keys in the results of each seed, undefined values left out."""
    values: list[Any] = list(runs)
    for key in keys:
        values = [value[key] for value in values if value is not None]
    return [value for value in values if value is not None]


def _cell(runs: Sequence[Any], *keys: str, percent: bool = False) -> str:
    """A figure with its interval; what rests on a single problem has none."""
    values = _values(runs, keys)
    if not values:
        return "undefined"
    scale, spec = (100, ".1f") if percent else (1, ".3f")
    ends = ("value", "low", "high") if all(value["low"] is not None for value in values) else ("value",)
    figures = [format(scale * sum(value[end] for value in values) / len(values), spec) for end in ends]
    return figures[0] if len(figures) < 3 else f"{figures[0]} [{figures[1]}, {figures[2]}]"


def _mean(runs: Sequence[Any], *keys: str) -> str:
    values = _values(runs, keys)
    return f"{sum(values) / len(values):.3f}" if values else "undefined"


def _by_seed(runs: Sequence[Any], *keys: str) -> str:
    return " ".join(f"{value:.3f}" for value in _values(runs, keys))
