"""The run's report: figures, plots and a page for people."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from gradatim.evaluation import (
    Estimate,
    MethodResult,
    PolicyResult,
    Report,
    ScoredStates,
    StepScoreResult,
    Thresholds,
    auc,
    bootstrap_difference,
    bootstrap_mean,
    estimated_flops,
    mean_spending,
    pass_at_k,
    samples_of,
    scored_states,
    step_score_result,
)
from gradatim.evaluation.page import markdown_page
from gradatim.evaluation.sample_costs import policy_tokens, subset_spending
from gradatim.evaluation.steps import UNDECIDED
from gradatim.part import content_of, models_of, name_of
from gradatim.recipes.section import Section
from gradatim.run.about import about, next_commands
from gradatim.run.context import Run
from gradatim.run.evaluating import scorer_name
from gradatim.run.finding import finding, training_helped
from gradatim.run.online_report import course
from gradatim.run.online_report import curves as online_curves
from gradatim.run.page import page_sections
from gradatim.run.shown_solutions import shown_solutions
from gradatim.run.stages import BASE
from gradatim.run.trees import is_of_task, value_key
from gradatim.store.files import write_json, write_text
from gradatim.tasks.truth import state_truth
from gradatim.tree import Tree


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one policy.

    Attributes:
        result: its accuracy.
        sampled: the trees behind it.
    """

    result: PolicyResult
    sampled: list[Tree]


def write_report(
    run: Run,
    policies: dict[str, Measured],
    search: list[MethodResult],
    benchmarks: list[dict[str, Any]],
    train_trees: Sequence[Tree],
) -> dict[str, Any]:
    """Write ``report.json``, ``report.md`` and the plots; returns the content of ``report.json``."""
    labels = label_agreement(run, train_trees)
    searched = policies[run.searched_policy].sampled if policies else []
    first = policies[BASE].sampled if policies else []
    step_scores = step_score_quality(run, searched)
    comparison, before, online = compare(run, policies), predecessors(policies), course(run)
    report = Report(
        title=f"Run {run.recipe.name}",
        settings=_settings(run),
        policies={key: measured.result for key, measured in policies.items()},
        differences={
            f"{key} - {before[key]}: {name}": estimate
            for key, part in comparison.items()
            for name, estimate in part.items()
        },
        search=search,
        prm=None if step_scores is None else step_scores[0],
        notes=[],
    )
    _draw(run, report, searched, online)
    value = report.to_json()
    for key, measured in policies.items():
        value[key].update(_costs(run, measured))
    if step_scores is not None:
        value["prm"]["all_states"] = step_scores[1].to_json()
    value["comparison"] = {
        key: {name: estimate.to_json() for name, estimate in part.items()} for key, part in comparison.items()
    }
    value["compared_with"] = before
    value["searched"] = run.searched_policy if policies else None
    value["benchmarks"] = benchmarks
    value["labels"] = labels
    value["online"] = online
    records = run.stage_records()
    value["outcomes"] = {stage: record["outcomes"] for stage, record in records.items() if "outcomes" in record}
    value["counts"] = {stage: record["counts"] for stage, record in records.items() if record.get("counts")}
    value["learned_from"] = {
        stage: record["learned_from"] for stage, record in records.items() if record.get("learned_from")
    }
    value["failed"] = {stage: record["failed"] for stage, record in records.items() if record.get("failed")}
    value["warnings"] = list(dict.fromkeys(text for record in records.values() for text in record.get("warnings", [])))
    value["solutions"] = shown_solutions(searched, run.recipe.policy.sampling)
    value["stages"] = {
        stage: {name: entry for name, entry in record.items() if name not in _NOT_REPORTED}
        for stage, record in records.items()
    }
    value["models"] = run.folder.record("models")
    value["recipe"] = run.recipe.model_dump(mode="json")
    value["unchanged"] = [name for name in before if not training_helped(value, name)]
    value["finding"] = finding(value)
    value["about"] = about(run, value, {"train": len(train_trees), "test": len(first)})
    value["next"] = next_commands(run, first)
    write_json(run.folder.path / "report.json", value)
    write_text(run.folder.path / "report.md", markdown_page(report.title, page_sections(value)))
    return value


def label_agreement(run: Run, trees: Sequence[Tree]) -> dict[str, Any] | None:
    """How far the values of open steps agree with the oracle; ``None`` where the task knows no truth.

    ``accuracy`` is that of "some solution from here was right" as a sign that one exists; ``auc`` that of the value
    as a score; ``states`` how many steps.
    """
    truth = state_truth(run.task)
    if truth is None:
        return None
    key = value_key(run.recipe)
    values: list[float] = []
    truths: list[bool] = []
    for tree in filter(is_of_task, trees):
        for node in tree.nodes[1:]:
            if node.open and key in node.scores:
                values.append(node.scores[key])
                truths.append(truth.holds(tree.problem, node.text))
    if not values:
        return None
    hard = np.array(values) > 0
    good = np.array(truths)
    return {
        "truth": truth.name,
        "states": len(values),
        "share_good": float(good.mean()),
        "accuracy": float((hard == good).mean()),
        "good_found": float(hard[good].mean()) if good.any() else None,
        "auc": auc(truths, values),
    }


def step_score_quality(run: Run, sampled: Sequence[Tree]) -> tuple[StepScoreResult, StepScoreResult] | None:
    """The scorer against the oracle over what the searched policy wrote for test problems: over partial solutions, and
    over all steps, final ones included. ``None`` without a scorer or an oracle, or where nothing was scored."""
    name, truth = scorer_name(run), state_truth(run.task)
    if name is None or truth is None:
        return None
    thresholds, choice = _thresholds(run)
    partial = [scored_states(tree, run.task, name) for tree in sampled]
    if not any(states.scores for states in partial):
        return None
    everything = []
    for tree in sampled:
        nodes = [node for node in tree.nodes[1:] if name in node.scores]
        everything.append(
            ScoredStates(
                tuple(truth.holds(tree.problem, node.text) for node in nodes),
                tuple(node.scores[name] for node in nodes),
            )
        )
    seed = run.recipe.seed
    return (
        step_score_result(name, partial, thresholds=thresholds, choice=choice, truth=truth.name, seed=seed),
        step_score_result(name, everything, thresholds=thresholds, choice=choice, truth=truth.name, seed=seed),
    )


def _thresholds(run: Run) -> tuple[Thresholds, str]:
    """The scorer's thresholds, and how they were chosen, in words."""
    part = run.recipe.evaluation.scorer
    trained = [run.last_training(name) for name in models_of(part)]
    records = [run.folder.record(name).get("thresholds") for name in trained if name is not None]
    record: dict[str, Any] = next((each for each in records if each), {})
    thresholds = Thresholds(record.get("accuracy"), record.get("first_error"))
    count = record.get("problems", 0)
    if not count:
        return thresholds, f"Both thresholds are {UNDECIDED}: there were no validation trees to choose them on."
    where = "1 validation problem" if count == 1 else f"{count:,} validation problems"
    if None not in (thresholds.accuracy, thresholds.first_error):
        return thresholds, f"Each threshold was chosen on the trees of {where}, as the best for its own figure."
    missing = []
    if thresholds.accuracy is None:
        missing.append(f"for the accuracy none is better than calling every step wrong, so it is {UNDECIDED}")
    if thresholds.first_error is None:
        missing.append(f"for first errors none has an F1 above 0, so it is {UNDECIDED}")
    return thresholds, f"Of thresholds chosen on the trees of {where}, {'; '.join(missing)}."


def compare(run: Run, policies: dict[str, Measured]) -> dict[str, dict[str, Estimate]]:
    """Every trained policy against the one that its training began with, paired by problem: pass@1, and pass@k for the
    recipe's ``k``."""
    compared: dict[str, dict[str, Estimate]] = {}
    for key, earlier in predecessors(policies).items():
        trees = [{tree.problem.id: tree for tree in policies[each].sampled} for each in (earlier, key)]
        both = [id for id in trees[0] if id in trees[1]]  # a problem that failed for one of them is no pair
        before, after = [[samples_of(each[id]) for id in both] for each in trees]
        compared[key] = {
            f"pass@{k}": bootstrap_difference(
                [_pass(group, k) for group in before], [_pass(group, k) for group in after], seed=run.recipe.seed
            )
            for k in sorted({1, *run.recipe.evaluation.pass_at})
        }
    return compared


def predecessors(policies: Mapping[str, Measured]) -> dict[str, str]:
    """The policy that each one was trained from; ``policies`` are in the order in which they came about."""
    return {later: earlier for earlier, later in pairwise(policies)}


def _pass(group: Sequence[Any], k: int) -> float:
    return pass_at_k(len(group), sum(bool(sample.correct) for sample in group), k)


def _costs(run: Run, measured: Measured) -> dict[str, Any]:
    """What one sampled solution costs, prompt included, in tokens of the policy and estimated FLOPs."""
    of = run.recipe.evaluation.samples
    mean = mean_spending([subset_spending(tree, 1, of, {}) for tree in measured.sampled])
    return {
        "tokens_per_problem": sum(cost.tokens for cost in mean.values()),
        "tokens_per_problem_all_samples": bootstrap_mean(
            [float(policy_tokens(tree)) for tree in measured.sampled], resamples=1
        ).value,
        "flops_per_problem": estimated_flops(mean),
    }


def _settings(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "task": _listed({key: each for key, each in content_of(recipe.task).items() if each is not None}),
        "policy": recipe.policy.model,
        "problems": _written(recipe.problems),
        "search": "none" if recipe.search is None else _listed(content_of(recipe.search)),
        "learn": ", ".join(f"{each.model} by {name_of(each.objective)}" for each in recipe.learn) or "nothing",
        "rounds": recipe.rounds,
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
    }


_NOT_REPORTED = {
    "history",
    "done",
    "depends",
    "outcomes",
    "counts",
    "learned_from",
    "warnings",
    "failed",
}  # of a stage's record


def _written(section: Section) -> str:
    return _listed(section.model_dump(exclude_none=True))


def _listed(content: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in content.items())


_FIGURE_NODES = 24  # a figure of more is too tall to be read on a page


def _draw(run: Run, report: Report, trees: Sequence[Tree], online: Mapping[str, Any] | None) -> None:
    """The plots; matplotlib is loaded here, at the end."""
    from gradatim.evaluation.plots import accuracy_against_tokens, learning_curves, reliability, training_curves
    from gradatim.view.figure import draw_tree

    def add(caption: str, name: str) -> str:
        report.plots[caption] = f"plots/{name}"
        return str(run.folder.plot(name))

    if report.search:
        accuracy_against_tokens(report.search, add("Accuracy against tokens", "accuracy-against-tokens.png"))
    if report.prm is not None and report.prm.calibration:
        path = add("Reliability of the step scores", "reliability.png")
        reliability(report.prm.calibration, path, truth=report.prm.truth)
    for spent, words in {"round": "rounds", "generated": "generated tokens"}.items():
        if online is not None and (lines := online_curves(online, spent)):
            caption = f"Accuracy against {words}"
            path = add(caption, f"accuracy-against-{words.replace(' ', '-')}.png")
            learning_curves(lines, path, title=caption, x_label=words)
    for stage, record in run.stage_records().items():
        history = [(float(entry["step"]), float(entry["loss"])) for entry in record.get("history", [])]
        if len(history) > 1:
            caption = f"Training loss, {stage}"
            training_curves({"loss": history}, add(caption, f"training-{stage}.png"), title=caption)
    if trees:
        telling = max(trees, key=_contrast)
        name = scorer_name(run)  # where every solution was cut off, none was scored
        by = name if any(name in node.scores for node in telling.nodes) else None
        draw_tree(telling, add("One problem's tree", "tree.png"), by=by, limit=_FIGURE_NODES)


def _contrast(tree: Tree) -> float:
    """High for trees with right and wrong solutions, about half of each."""
    samples = samples_of(tree)
    share = sum(bool(sample.correct) for sample in samples) / len(samples)
    return share * (1 - share)
