"""What a comparison says: figures, plots and a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradatim.evaluation import wording
from gradatim.evaluation.bootstrap import FEW_PROBLEMS, Estimate
from gradatim.evaluation.compare import Cost
from gradatim.evaluation.equal_compute import (
    SIGNIFICANT,
    Curve,
    Difference,
    corrected,
    differences,
    frontier,
    seed_deviation,
)
from gradatim.evaluation.page import Picture, Section, Table, held, markdown_page
from gradatim.evaluation.steps import NO_THRESHOLDS, ScoredStates, StepScoreResult, choose_thresholds, step_score_result
from gradatim.evaluation.written import Written
from gradatim.recipes.comparison import Comparison
from gradatim.run.policies_report import policies_content, policies_finding, policies_sections
from gradatim.run.run_folder import RunFolder
from gradatim.store.files import write_json, write_text
from gradatim.tasks.truth import OF_STATES, TruthName

_FEWEST = 20  # states of a depth, of which fewer say nothing


@dataclass(frozen=True, slots=True)
class JudgedSteps:
    """What a scorer said of partial solutions, with the truth about them.

    Attributes:
        scorer: the comparison's name for it.
        test: the states of each test problem.
        validation: those of other problems, on which thresholds are chosen.
        truth: which truth it is.
    """

    scorer: str
    test: list[ScoredStates]
    validation: list[ScoredStates]
    truth: TruthName


def write_comparison(
    folder: RunFolder,
    comparison: Comparison,
    curves: Sequence[Curve],
    judged: Sequence[JudgedSteps],
    policies: Sequence[Written],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """Write ``report.json``, ``report.md`` and the plots; returns the content of ``report.json``.

    ``failed`` has the errors of the problems that could not be searched by all methods, by their ids.
    """
    seed = comparison.seeds[0]
    reference = next((each for each in curves if each.name == comparison.against), None)
    tests = corrected(
        [
            test
            for each in curves
            if reference is not None and each is not reference
            for test in differences(each, reference, seed=seed)
        ]
    )
    shape = curves[0].points[0].solved.shape if curves else policies[0].right.shape
    value: dict[str, Any] = {
        "kind": "compare",
        "title": f"Comparison {comparison.name}",
        "summary": comparison.summary,
        "problems": shape[1],
        "failed": dict(failed),
        "seeds": comparison.seeds,
        "reference": comparison.against,
        "methods": [_method(each, curves, seed) for each in curves],
        "differences": [test.to_json() for test in tests],
        "policies": policies_content(comparison, policies),
        "scorers": [_judged(each, seed) for each in judged],
        "models": {name: comparison.model(name).model for name in ("policy", *comparison.models)},
        "parameters": folder.record("models"),
    }
    value["finding"] = _finding(value, tests)
    value["plots"] = _draw(folder, comparison, curves, value)
    value["recipe"] = comparison.model_dump(mode="json")
    write_json(folder.path / "report.json", value)
    write_text(folder.path / "report.md", markdown_page(value["title"], comparison_sections(value)))
    return value


def comparison_sections(value: Mapping[str, Any]) -> list[Section]:
    """The report from top to bottom; ``value`` is the content of ``report.json``."""
    pictures = [Picture(caption, path) for caption, path in value["plots"].items()]
    return [
        Section("", [text for text in (value["summary"], " ".join(value["finding"])) if text]),
        *([_curves_section(value)] if value["methods"] else []),
        *policies_sections(value),
        Section("Plots", pictures),
        _tests_section(value),
        *_scorer_sections(value),
        Section("Settings", [_settings(value)]),
    ]


def _method(each: Curve, curves: Sequence[Curve], seed: int) -> dict[str, Any]:
    best = {id(point) for _, point in frontier(curves)}
    points = []
    for point, result in zip(each.points, each.results(seed), strict=True):
        points.append(
            {
                "size": point.size,
                "seconds": point.seconds,
                "seed_deviation": seed_deviation(point),
                "on_frontier": id(point) in best,
                **{key: part for key, part in result.to_json().items() if key not in ("method", "scorer", "settings")},
            }
        )
    return {"name": each.name, "scorer": each.scorer, "policy": each.policy, "points": points}


def _judged(judged: JudgedSteps, seed: int) -> dict[str, Any]:
    """The quality of a scorer over all states and by their depth."""
    enough = bool(judged.validation) and any(each.scores for each in judged.validation)
    thresholds = choose_thresholds(judged.validation) if enough else NO_THRESHOLDS
    choice = "chosen on validation problems" if enough else "0.5, since there are no validation problems"

    def measured(states: list[ScoredStates]) -> StepScoreResult:
        return step_score_result(
            judged.scorer, states, thresholds=thresholds, choice=choice, truth=judged.truth, resamples=500, seed=seed
        )

    depths = sorted({depth for each in judged.test for depth in each.depths})
    by_depth = []
    for depth in depths:
        states = [each.of_depth(depth) for each in judged.test]
        if sum(len(each.scores) for each in states) >= _FEWEST:
            result = measured([each for each in states if each.scores])
            by_depth.append({"depth": depth, "calibration_error": calibration_error(result), **result.to_json()})
    whole = measured(judged.test)
    return {
        "name": judged.scorer,
        **whole.to_json(),
        "calibration_error": calibration_error(whole),
        "by_depth": by_depth,
    }


def calibration_error(result: StepScoreResult) -> float:
    """Expected calibration error: how far the scores of a bin lie from its share of good states, on average (Naeini et
    al., 2015)."""
    states = sum(part.count for part in result.calibration)
    return sum(part.count * abs(part.mean_score - part.share_good) for part in result.calibration) / max(1, states)


def _finding(value: Mapping[str, Any], tests: Sequence[Difference]) -> list[str]:
    sentences = [] if value["policies"] is None else policies_finding(value["policies"], value["problems"])
    return [*sentences, *(_methods_finding(value, tests) if value["methods"] else []), *_failures(value)]


def _methods_finding(value: Mapping[str, Any], tests: Sequence[Difference]) -> list[str]:
    best = max(
        ((point, method) for method in value["methods"] for point in method["points"]),
        key=lambda pair: (pair[0]["accuracy"], -pair[0]["tokens"]),
    )
    point, method = best
    sentences = [
        f"Of {len(value['methods'])} methods on {wording.held_out(value['problems'])}, {method['name']}"
        f"{_size(point)} is the most accurate: {wording.percent(point['accuracy'])} % for {point['tokens']:,.0f} "
        "tokens a problem."
    ]
    for verdict in ("better", "worse"):
        names = dict.fromkeys(test.method for test in tests if test.verdict == verdict)
        only = [
            name
            for name in names
            if not any(t.method == name and t.verdict not in (verdict, "undecided") for t in tests)
        ]
        if only:
            sentences.append(f"At equal tokens {verdict} than {value['reference']}: {'; '.join(only)}.")
    mixed = [
        name
        for name in dict.fromkeys(test.method for test in tests)
        if {"better", "worse"} <= {test.verdict for test in tests if test.method == name}
    ]
    if mixed:
        sentences.append(f"Better at some budgets and worse at others: {'; '.join(mixed)}.")
    open_ = [
        name
        for name in dict.fromkeys(test.method for test in tests)
        if all(test.verdict == "undecided" for test in tests if test.method == name)
    ]
    if open_:
        sentences.append(f"No difference from it could be shown for {'; '.join(open_)}.")
    return sentences


def _failures(value: Mapping[str, Any]) -> list[str]:
    failed = value["failed"]
    if not failed:
        return []
    return [
        f"{len(failed):,} problem{'' if len(failed) == 1 else 's'} failed in a search and "
        f"{'is' if len(failed) == 1 else 'are'} missing from all figures; the same command tries again (the first "
        f"is {next(iter(failed))!r}: {next(iter(failed.values()))})."
    ]


def _size(point: Mapping[str, Any]) -> str:
    return "" if point["size"] is None else f" (size {point['size']})"


def _curves_section(value: Mapping[str, Any]) -> Section:
    with_flops = any(point["flops"] is not None for method in value["methods"] for point in method["points"])
    charged = dict.fromkeys(
        name for method in value["methods"] for point in method["points"] for name in point["spending"]
    )
    header = ["method", "scorer", "size", "tokens", "accuracy", "frontier"]
    narrow = len(header)
    header += [*(f"{name} tokens" for name in charged), *(["FLOPs"] if with_flops else []), "s/problem", "sd of seeds"]
    rows = []
    for method in value["methods"]:
        for point in method["points"]:
            deviation = point["seed_deviation"]
            rows.append(
                [
                    method["name"],
                    "" if method["scorer"] == "none" else method["scorer"],
                    "" if point["size"] is None else f"{point['size']:,}",
                    f"{point['tokens']:,.0f}",
                    wording.share(Estimate.from_fields(point, "accuracy", point["problems"])),
                    "*" if point["on_frontier"] else "",
                    *(f"{Cost(**point['spending'].get(name, {})).tokens:,.0f}" for name in charged),
                    *([] if not with_flops else ["" if point["flops"] is None else f"{point['flops']:.2e}"]),
                    "" if point["seconds"] is None else f"{point['seconds']:.3f}",
                    "" if deviation is None else f"{100 * deviation:.1f}",
                ]
            )
    seeds = len(value["seeds"])
    note = (
        f"Tokens per problem, of all models; {wording.intervals_note(value['problems'])}"
        f"{'' if seeds == 1 else f', means over {seeds} seeds'}; * is on the frontier: nothing cheaper is as accurate"
    )
    return Section("Accuracy against tokens", [Table(header, rows, note, words=2, narrow=narrow)])


def _tests_section(value: Mapping[str, Any]) -> Section:
    rows = []
    for test in value["differences"]:
        difference = Estimate.from_fields(test, "difference", test["problems"])
        needed = test["reference_tokens"]
        rows.append(
            [
                test["method"],
                f"{test['tokens']:,.0f}",
                wording.points(difference),
                f"{test['p_corrected']:.3f}",
                test["verdict"],
                "not reached" if needed is None else f"{needed:,.0f}",
            ]
        )
    if not rows:
        return Section("", [])
    unit = "problems" if value["problems"] < FEW_PROBLEMS else "points"
    header = ["method", "at tokens", f"difference, {unit}", "p", "verdict", "the reference needs"]
    note = (
        f"Accuracy minus that of {value['reference']} at equal tokens, paired over problems; p by flipping signs, "
        f"corrected for {len(rows)} tests (Holm); claimed below {SIGNIFICANT} alone. The last column is what "
        f"{value['reference']} needs for the same accuracy"
    )
    return Section(f"Against {value['reference']}", [Table(header, rows, note)])


def _scorer_sections(value: Mapping[str, Any]) -> list[Section]:
    if not value["scorers"]:
        return []
    truth: TruthName = value["scorers"][0]["truth"]
    header = ["scorer", "depth", "states", "good", "AUC", "accuracy", "calibration error", "first-error F1"]
    rows = [
        _scorer_row(scorer["name"] if part is scorer else "", "all" if part is scorer else f"{part['depth']}", part)
        for scorer in value["scorers"]
        for part in (scorer, *scorer["by_depth"])
    ]
    note = (
        f"Partial solutions of the policy's samples against exact truth: good ones {OF_STATES[truth]}; depth is their "
        f"number of steps; thresholds {value['scorers'][0]['thresholds']}"
    )
    return [Section("Step scores", [Table(header, rows, note, words=2)])]


def _scorer_row(name: str, depth: str, part: Mapping[str, Any]) -> list[str]:
    auc = "–" if part["auc"] is None else f"{Estimate.from_fields(part, 'auc', part['problems']):.3f}"
    return [
        name,
        depth,
        f"{part['states']:,}",
        f"{wording.percent(part['share_good'])} %",
        held(auc),
        f"{part['accuracy']:.3f}",
        f"{part['calibration_error']:.3f}",
        "" if part["first_error_f1"] is None else f"{part['first_error_f1']:.3f}",
    ]


def _settings(value: Mapping[str, Any]) -> Table:
    rows = [["problems", f"{value['problems']:,}"], ["seeds", ", ".join(map(str, value["seeds"]))]]
    for name, model in value["models"].items():
        parameters = value["parameters"].get(f"{name}_parameters")
        rows.append([name, model if parameters is None else f"{model} ({parameters:,} parameters)"])
    return Table(["setting", "value"], rows, words=2)


def _draw(
    folder: RunFolder, comparison: Comparison, curves: Sequence[Curve], value: Mapping[str, Any]
) -> dict[str, str]:
    from gradatim.evaluation.plots import accuracy_against_compute, scores_by_depth

    plots = {}
    if curves:
        plots["Accuracy against tokens"] = "plots/accuracy-against-tokens.png"
        title = f"{comparison.name}: accuracy against tokens"
        accuracy_against_compute(curves, folder.plot("accuracy-against-tokens.png"), title=title)
    flops = [point["flops"] for method in value["methods"] for point in method["points"]]
    if flops and all(flops) and len({each.policy for each in curves}) > 1:
        title = f"{comparison.name}: accuracy against estimated FLOPs"
        path = "accuracy-against-flops.png"
        accuracy_against_compute(curves, folder.plot(path), title=title, of="flops")
        plots["Accuracy against estimated FLOPs"] = f"plots/{path}"
    if any(scorer["by_depth"] for scorer in value["scorers"]):
        scores_by_depth(value["scorers"], folder.plot("scores-by-depth.png"))
        plots["How well scorers tell good partial solutions, by depth"] = "plots/scores-by-depth.png"
    return plots
