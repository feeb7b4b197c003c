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
from gradatim.run.context import Run
from gradatim.run.evaluating import scorer_name
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
    fitted = run.recipe.objective is not None or run.recipe.fine_tuning is not None
    if fitted or (run.recipe.scorer is not None and run.recipe.scorer.train):
        counts["validation"] = len(run.problems("validation"))
    facts = {
        "policy": _policy(run, value),
        "scorer": _scorer(run, value),
        "fine-tuning": _fine_tuning(value),
        "objective": _objective(run, value),
        "data": f"{_task(run)}; problems used: "
        + ", ".join(f"{split} {counts[split]:,}" for split in ("train", "validation", "test") if counts.get(split)),
        "date": _date(value),
        "versions": f"gradatim {gradatim.__version__}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, Python {platform.python_version()}",
    }
    return {name: text for name, text in facts.items() if text}


def next_commands(run: Run, sampled: Sequence[Tree]) -> list[str]:
    """Commands that go on from the run; ``sampled`` are the trees of the test problems by the base policy."""
    folder, problem = shlex.quote(str(run.folder.path)), sampled[0].problem
    grown = run.recipe.search is not None
    chosen = "" if grown else " --trees evaluate-base"
    commands = [f"gradatim show {folder}{chosen}"]
    if rows := "--format stepwise" if grown else _rows_of_samples(run, sampled):
        commands.append(f"gradatim export {folder}{chosen} {rows} --output rows.jsonl")
    task = run.recipe.task.on_command_line
    if task is not None and run.recipe.policy.adapter is None:  # solve takes no adapter
        policy = run.policy_path(0 if run.recipe.objective is None else run.recipe.rounds)
        scorer = run.recipe.scorer
        judge = ""
        if scorer is not None and (scorer.train or scorer.layout == "auto"):
            judge = f" --scorer {shlex.quote(str(run.scorer_path) if scorer.train else scorer.init)}"
        chat = "" if run.recipe.policy.chat is None else " --chat"
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
        return f"--format stepwise --value {shlex.quote(name)}"
    right = any(leaf.correct for tree in sampled for leaf in tree.solutions())
    return "--format prompt-completion" if right else ""


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
    """The scorer: its model, its layout, what it learned from, and how good it is."""
    options = run.recipe.scorer
    if options is None:
        return "none"
    layout = value["models"].get("scorer_layout", options.layout)
    base = run.recipe.policy.model if options.init == "policy" else options.init
    if not options.train:
        parts = [f"{base} as it is, layout {layout}"]
    else:
        record = value["stages"].get("scorer", {})
        parts = [f"trained here from {base} on {record.get('labels', 0):,} step labels, layout {layout}"]
        if evaluations := record.get("evaluations"):
            best = -evaluations[str(record["best_update"])]
            before = wording.number(-evaluations["0"])
            parts.append(
                f"held-out loss {before} before and {wording.number(best)} after"
                if record["best_update"]
                else f"training did not help, so that it is what it was before (held-out loss {before})"
            )
    prm = value["prm"]
    if prm is not None and prm["auc"] is not None:
        area = Estimate.from_fields(prm, "auc", prm["problems"])
        parts.append(f"AUC against the oracle {wording.number_with_interval(area)}")
    return "; ".join(parts)


def _fine_tuning(value: Mapping[str, Any]) -> str:
    """What the policy was taught before anything was searched."""
    record = value["stages"].get("fine-tuning")
    if record is None:
        return ""
    return (
        f"{record['examples']:,} worked solutions, {record['updates']:,} updates, saved after {record['best_update']:,}"
    )


def _objective(run: Run, value: Mapping[str, Any]) -> str:
    """How the policy was trained, round by round."""
    if run.recipe.objective is None:
        return ""
    rounds = [
        f"{record['examples']:,} examples, {record['updates']:,} updates, saved after {record['best_update']:,}"
        for stage, record in sorted(value["stages"].items())
        if stage.startswith("policy-")
    ]
    return f"{run.recipe.objective.name}: {'; '.join(rounds)}"


def _task(run: Run) -> str:
    task = run.recipe.task
    source = getattr(task, "source", None)
    name = task.on_command_line or task.name
    return name if source is None else f"{name} from {source}"


def _date(value: Mapping[str, Any]) -> str:
    """When the last stage ended."""
    times = [datetime.fromisoformat(record["at"]) for record in value["stages"].values() if "at" in record]
    return max(times).strftime("%Y-%m-%d %H:%M %z") if times else ""
