"""What a run was made of: its policy, its scorer, its data, when and with which versions; and what to type next."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import torch
import transformers

import gradatim
from gradatim.evaluation import wording
from gradatim.evaluation.bootstrap import Estimate
from gradatim.part import content_of, models_of, name_of
from gradatim.recipes.recipe import POLICY
from gradatim.run.context import Run
from gradatim.run.evaluating import scorer_name
from gradatim.run.stages import FINE_TUNING, ONLINE, policies_of
from gradatim.scorers.process_reward import ProcessRewardPart
from gradatim.tree import Tree

_LONGEST_TO_TYPE = 90  # characters of a problem that a command still shows


def about(run: Run, value: Mapping[str, Any], used: Mapping[str, int]) -> dict[str, str]:
    """The facts by name, each a line.

    Args:
        run: the run.
        value: the content of ``report.json`` so far.
        used: how many problems of each split were searched; those that stop training early are counted here.
    """
    counts = dict(used)
    if run.recipe.online is not None:
        counts["train"] = min(len(run.problems("train")), run.recipe.rounds * run.recipe.online.problems)
    if run.recipe.learn:
        counts["validation"] = len(run.problems("validation"))
    facts = {
        "policy": _policy(run, value),
        "scorer": _scorer(run, value),
        **_trainings(run, value),
        "data": f"{_task(run)}; problems used: "
        + ", ".join(f"{split} {counts[split]:,}" for split in ("train", "validation", "test") if counts.get(split)),
        "date": _date(value),
        "versions": f"gradatim {gradatim.__version__}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, Python {platform.python_version()}",
    }
    return {name: text for name, text in facts.items() if text}


def next_commands(run: Run, sampled: Sequence[Tree]) -> list[str]:
    """Commands that go on from the run; ``sampled`` are the trees of the test problems by the base policy."""
    folder, grown = shlex.quote(str(run.folder.path)), run.recipe.search is not None
    if not sampled:
        return [f"gradatim show {folder}"] if grown or run.recipe.trees.stored is not None else []
    chosen = "" if grown else " --trees evaluate-base"
    commands = [f"gradatim show {folder}{chosen}"]
    if rows := "--format stepwise" if grown else _rows_of_samples(run, sampled):
        commands.append(f"gradatim export {folder}{chosen} {rows} --output rows.jsonl")
    task = run.recipe.task.on_command_line
    if task is not None and run.recipe.policy.adapter is None:  # solve takes no adapter
        policy = run.path_of(POLICY, list(policies_of(run.recipe).values())[-1])
        scorer, judge = run.recipe.evaluation.scorer, ""
        if isinstance(scorer, ProcessRewardPart) and scorer.layout == "auto":
            judge = f" --scorer {shlex.quote(run.path_of(scorer.model, run.last_training(scorer.model)))}"
        chat = "" if run.recipe.policy.chat is None else " --chat"
        problem = sampled[0].problem
        text = str(problem.data.get("question", problem.prompt)).strip()
        if len(text) > _LONGEST_TO_TYPE or not text.isprintable():
            text = "PROBLEM"
        given = f" --task {shlex.quote(task)} --policy {shlex.quote(policy)}{judge}{chat}"
        commands.append(f"gradatim solve {shlex.quote(text)}{given}")
    return commands


def _rows_of_samples(run: Run, sampled: Sequence[Tree]) -> str:
    """The options that export sampled solutions as rows: their scores, else the right ones; none if there are none."""
    name = scorer_name(run)
    if name is not None and any(name in node.scores for tree in sampled for node in tree.nodes):
        return f"--set value={shlex.quote(name)}"
    right = any(leaf.correct for tree in sampled for leaf in tree.solutions())
    return "--data right_solutions" if right else ""


def _policy(run: Run, value: Mapping[str, Any]) -> str:
    options = run.recipe.policy
    size = value["models"].get("policy_parameters")
    parts = [
        options.model,
        *([] if size is None else [f"{size:,} parameters"]),
        *([] if options.adapter is None else [f"with the adapter {options.adapter}"]),
        *([] if options.chat is None else ["put its problems in its chat template"]),
        f"sampled at temperature {options.sampling.temperature:g}",
    ]
    return ", ".join(parts)


def _scorer(run: Run, value: Mapping[str, Any]) -> str:
    """What judges steps in the evaluation: its options, its model, and how good it is."""
    part = run.recipe.evaluation.scorer
    if part is None:
        return "none"
    options = [f"{key} {each}" for key, each in content_of(part).items() if key not in ("name", "key", "layout")]
    parts = [", ".join([name_of(part), *options])]
    for name in sorted(models_of(part)):
        layout = value["models"].get(f"{name}_layout")
        if run.last_training(name) is None:
            parts.append(f"{run.path_of(name, None)} as it is" + ("" if layout is None else f", layout {layout}"))
    prm = value["prm"]
    if prm is not None and prm["auc"] is not None:
        area = Estimate.from_fields(prm, "auc", prm["problems"])
        parts.append(f"AUC against the oracle {wording.number_with_interval(area)}")
    return "; ".join(parts)


def _trainings(run: Run, value: Mapping[str, Any]) -> dict[str, str]:
    """What learned from what, round by round, by model and objective."""
    found: dict[str, list[str]] = {}
    for name, stage in run.stages.items():
        record = value["stages"].get(name)
        if record is None:
            continue
        for learn, learned in zip(stage.learns, record.get("learned", [record]), strict=False):
            what = "fine-tuning" if name == FINE_TUNING else f"{learn.model}: {name_of(learn.objective)}"
            text = f"{learned['examples']:,} {learned['what']}, {learned['updates']:,} updates"
            if name == ONLINE:
                text += f" in {record['rounds']:,} rounds, saved after round {record['best_round']:,}"
            elif evaluations := record.get("evaluations"):
                text += f", saved after {record['best_update']:,}"
                if learn.measure == "loss":
                    before, best = -evaluations["0"], -evaluations[str(record["best_update"])]
                    text += f" (held-out loss {wording.number(before)} before, {wording.number(best)} then)"
            found.setdefault(what, []).append(text)
    return {what: "; ".join(texts) for what, texts in found.items()}


def _task(run: Run) -> str:
    task = run.recipe.task
    source = getattr(task, "source", None)
    name = task.on_command_line or task.name
    return name if source is None else f"{name} from {source}"


def _date(value: Mapping[str, Any]) -> str:
    """When the last stage ended."""
    times = [datetime.fromisoformat(record["at"]) for record in value["stages"].values() if "at" in record]
    return max(times).strftime("%Y-%m-%d %H:%M %z") if times else ""
