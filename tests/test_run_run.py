"""A whole run on the shipped policy, its figures, and what happens when it is stopped anywhere."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from gradatim.cli.main import app
from gradatim.errors import GradatimError
from gradatim.evaluation import choose_thresholds, scored_states
from gradatim.evaluation.sample_costs import scoring_of, subset_spending
from gradatim.models import resolve_model
from gradatim.recipes import Recipe
from gradatim.run import Progress, one_training, run_recipe
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.store import TreeStore, trees
from gradatim.supervision.sibling_pairs import SiblingPairs
from gradatim.supervision.step_labels import StepLabels
from gradatim.tasks.countdown import Countdown
from gradatim.training.trainer import TreeTrainer
from gradatim.tree import Tree
from gradatim.values.base import VALUE
from small_runs import TREE_STORES, small_content, small_recipe, write_small_recipe

FIGURES = ("base", "step_dpo", "search", "prm", "labels", "comparison")


def run(recipe: Recipe, folder: Path, **options: Any) -> dict[str, Any]:
    return run_recipe(recipe, folder, progress=Progress(Console(file=io.StringIO())), **options)


def figures(folder: Path) -> dict[str, Any]:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {name: report[name] for name in FIGURES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run(small_recipe(), folder)
    return folder


def stored(folder: Path, name: str) -> list[Tree]:
    return list(TreeStore(folder / "trees" / f"{name}.jsonl"))


def test_run_folder_holds_everything(whole: Path) -> None:
    assert {name: len(stored(whole, name)) for name in TREE_STORES} == TREE_STORES
    for name in ("scorer/model.safetensors", "policy/model.safetensors", "policy/tokenizer.json", "report.md"):
        assert (whole / name).stat().st_size > 0
    for plot in ("accuracy-against-tokens.png", "tree.png"):
        assert (whole / "plots" / plot).read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((whole / "recipe.yaml").read_text())["search"]["rollouts"] == 1, "defaults are written out"


def test_trees_are_graded_and_valued(whole: Path) -> None:
    task = Countdown()
    for tree in stored(whole, "round-1"):
        for leaf in tree.solutions():
            assert leaf.reward == task.check(tree.problem, leaf.text).reward
        assert tree.root.children
        assert all(VALUE in node.scores for node in tree.nodes)


def test_figures_follow_from_the_trees(whole: Path) -> None:
    report = json.loads((whole / "report.json").read_text())
    sampled = stored(whole, "evaluate-base")
    right = [sum((leaf.reward or 0.0) * leaf.multiplicity for leaf in tree.leaves()) for tree in sampled]
    tokens = [tree.budget.read("policy") + tree.budget.written("policy") for tree in sampled]
    assert report["base"]["pass_at_1"] == pytest.approx(sum(right) / 16)
    assert report["base"]["pass_at_k"]["4"]["value"] == pytest.approx(sum(count > 0 for count in right) / 4)
    if sum(right):
        assert report["base"]["tokens_per_solved"] == pytest.approx(sum(tokens) / sum(right))
    beam = next(entry for entry in report["search"] if entry["method"] == "beam search")
    searched = stored(whole, "search-beam-width-2-branch-2")
    assert beam["tokens"] == pytest.approx(sum(tree.budget.total for tree in searched) / len(searched))
    best = [max(tree.solutions(), key=lambda leaf: leaf.scores["process_reward"], default=None) for tree in searched]
    assert beam["accuracy"] == pytest.approx(sum(leaf.reward or 0.0 for leaf in best if leaf) / len(searched))
    truths = [
        Countdown().reachable(tree.problem, node.text) == (node.scores[VALUE] > 0)
        for tree in stored(whole, "round-1")
        for node in tree.nodes[1:]
        if node.open
    ]
    assert report["labels"]["states"] == len(truths)
    assert report["labels"]["accuracy"] == pytest.approx(sum(truths) / len(truths))
    assert report["prm"]["states"] == sum(node.open for tree in sampled for node in tree.nodes[1:])


def test_thresholds_are_the_best_of_the_validation_trees(whole: Path) -> None:
    """Against the scores of the saved scorer, whose weights are rounded to the type of those it came from."""
    report = json.loads((whole / "report.json").read_text())
    scorer, held_out = ProcessRewardScorer.from_pretrained(whole / "scorer"), stored(whole, "round-1-validation")
    for tree in held_out:
        asyncio.run(scorer.score(tree.nodes[1:]))
    chosen = choose_thresholds([scored_states(tree, Countdown(), scorer.name) for tree in held_out])
    kept = report["stages"]["scorer-1"]["thresholds"]
    assert kept["problems"] == 3
    assert [kept["accuracy"], kept["first_error"]] == [
        each if each is None else pytest.approx(each, abs=2e-3) for each in (chosen.accuracy, chosen.first_error)
    ]
    prm = report["prm"]
    assert prm["first_error_threshold"] == (0.5 if kept["first_error"] is None else kept["first_error"])
    assert "on the trees of 3 validation problems" in prm["thresholds"]
    assert prm["thresholds"] in " ".join((whole / "report.md").read_text().split())


@pytest.mark.parametrize("judge", [None, {"model": "shipped:countdown-reward", "train": False}])
def test_the_commands_that_a_report_names_work(judge: Any, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"search": None, "judge": judge, "objective": None, "problems": {"test": 3}}
    report = run(small_recipe(**changes, evaluation={"samples": 8, "greedy": False}), tmp_path)
    assert report["base"]["right"], "else there is nothing to export"
    shown, exported, solved = report["next"]
    assert ("--scorer shipped:countdown-reward" in solved) == (judge is not None)
    for command in (shown, exported.replace("rows.jsonl", str(tmp_path / "rows.jsonl")), solved):
        result = CliRunner().invoke(app, shlex.split(command)[1:])
        assert result.exit_code == 0, result.output
    assert (tmp_path / "rows.jsonl").read_text().count("\n") > 0


def test_learning_used_the_labels_and_pairs_of_the_trees(whole: Path) -> None:
    forest = stored(whole, "round-1")
    stages = json.loads((whole / "report.json").read_text())["stages"]
    labels, siblings = StepLabels(), SiblingPairs(min_gap=0.1, pairing="all")
    assert stages["scorer-1"]["examples"] == sum(len(list(labels(tree))) for tree in forest)
    pairs = [pair for tree in forest for pair in siblings(tree)]
    assert stages["policy-1"]["examples"] == len(pairs) > 0


def test_cost_of_a_subset_of_samples_is_the_exact_mean(whole: Path) -> None:
    """Against enumeration: every subset's distinct scored tokens, counted one by one."""
    from itertools import combinations

    for tree in stored(whole, "evaluate-base"):
        samples = [leaf for leaf in tree.leaves() for _ in range(leaf.multiplicity)]
        assert len(samples) == 4
        everything = subset_spending(tree, 4, 4, scoring_of(tree))
        assert sum(cost.tokens for cost in everything.values()) == pytest.approx(tree.budget.total)
        for n in (1, 2, 3):
            costs = []
            for subset in combinations(samples, n):
                read = {node for leaf in subset if leaf.finished for node in leaf.path()}
                costs.append(sum(len(node.step.tokens) for node in read))
            spending = subset_spending(tree, n, 4, scoring_of(tree))
            assert spending["scorer"].read == pytest.approx(sum(costs) / math.comb(4, n))
            assert spending["policy"].written == pytest.approx(tree.budget.written("policy") * n / 4)


class StopError(Exception):
    """Stands for whatever ends a run."""


def after(calls: int, function: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    """``function``, but the call after so many raises."""
    count = 0

    def wrapped(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count > calls:
            raise error
        return function(*args, **options)

    return wrapped


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (trees.TreeStore, "append", 3),  # while growing
        (trees.TreeStore, "append", 8),  # while growing for validation
        (TreeTrainer, "training_step", 5),  # in the scorer's training, after two checkpoints
        (one_training, "save_process_reward_model", 0),  # after the scorer's training
        (TreeTrainer, "training_step", 7),  # in the policy's training
        (trees.TreeStore, "append", 15),  # while evaluating
        (trees.TreeStore, "append", 27),  # while searching
    ],
)
def test_interrupted_run_ends_like_an_uninterrupted_one(
    owner: Any, name: str, calls: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, after(calls, getattr(owner, name), StopError()))
        with pytest.raises(StopError):
            run(small_recipe(), tmp_path)
    assert not (tmp_path / "report.json").exists()
    before = {path: path.read_bytes() for path in (tmp_path / "trees").glob("*.jsonl")}
    run(small_recipe(), tmp_path)
    for path, content in before.items():
        assert path.read_bytes().startswith(content), "what was finished is kept as it was"
    for store, count in TREE_STORES.items():
        assert len((tmp_path / "trees" / f"{store}.jsonl").read_bytes().splitlines()) == count, "nothing is done twice"
    assert figures(tmp_path) == figures(whole)


def test_finished_run_loads_no_model(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradatim.run.models import Models

    expected = figures(whole)
    for name in ("policy", "reward_model", "train"):
        monkeypatch.setattr(Models, name, after(0, getattr(Models, name), StopError()))
    run(small_recipe(), whole)
    assert figures(whole) == expected


def test_full_disk_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trees, "_write_all", after(2, trees._write_all, OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(GradatimError, match="no space left"):
            run(small_recipe(), tmp_path)
    assert len(stored(tmp_path, "round-1")) == 2


def test_fresh_deletes_the_earlier_run_and_nothing_else(tmp_path: Path) -> None:
    recipe = small_recipe(problems={"train": 2, "test": 2}, judge=None, objective=None, evaluation={"samples": 8})
    run(recipe, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    run(recipe.model_copy(update={"seed": 1}), tmp_path, fresh=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["seed"] == 1
    assert not (tmp_path / "superseded").exists()


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    from gradatim.run import RunFolder

    with RunFolder(tmp_path, small_recipe()), pytest.raises(GradatimError, match="another run is using"):
        RunFolder(tmp_path, small_recipe())
    RunFolder(tmp_path, small_recipe()).close()


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {"name": "sampling", "n": 6}, "trees": {"in_flight": 4}},
        {"search": {"name": "beam", "width": 2, "branch": 3}, "scorer": {"name": "rollouts", "rollouts": 1}},
        {
            "search": {"mcts": {"simulations": 4, "branch": 3}},
            "scorer": {"name": "rollouts", "rollouts": 1},
            "trees": {"budget": 400},
        },
        {
            "search": {"name": "grow", "branching": [3, 2], "rollouts": 2, "skip_decided": True},
            "scorer": {"name": "rollouts", "rollouts": 3},
        },
    ],
)
def test_every_way_of_growing_trees(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = small_recipe(
        problems={"train": 3, "test": 2},
        **changes,
        values=[{"name": "scored", "scorer": {"name": "rollouts", "rollouts": 3}}],
        judge=None,
        objective=None,
        evaluation={"samples": 8, "greedy": False},
    )
    run(recipe, tmp_path)
    forest = stored(tmp_path, "round-1")
    assert len(forest) == 3
    for tree in forest:
        assert tree.budget.limit is None or tree.budget.total <= tree.budget.limit
        assert any(VALUE in node.scores for node in tree.nodes[1:])


@pytest.mark.parametrize("objective", ["dpo", "sft"])
def test_rounds_train_on_the_trees_of_the_policy_before(objective: str, tmp_path: Path) -> None:
    recipe = small_recipe(
        problems={"train": 4, "test": 2},
        rounds=2,
        judge=None,
        objective={"name": objective, "training": {"learning_rate": 2e-4, "epochs": 4, "tokens_per_batch": 128}},
        evaluation={"samples": 8, "greedy": False},
    )
    report = run(recipe, tmp_path)
    assert objective in report
    weights = [
        load_file(folder / "model.safetensors")["model.embed_tokens.weight"].float()
        for folder in (
            Path(resolve_model("shipped:countdown")),
            tmp_path / "checkpoints" / "policy-1" / "policy",
            tmp_path / "policy",
        )
    ]
    assert not weights[0].equal(weights[1])
    assert not weights[1].equal(weights[2])
    assert len(stored(tmp_path, "round-2")) == 4


def test_mixed_precision_is_measured_by_held_out_problems(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "trees", tmp_path / "trees")
    learn = [each | {"training": each["training"] | {"bf16": True}} for each in small_content()["learn"]]
    report = run(small_recipe(learn=learn), tmp_path)
    for stage in ("scorer-1", "policy-1"):
        assert len(report["stages"][stage]["evaluations"]) > 1
    assert figures(tmp_path)["base"] == figures(whole)["base"]
    for model in ("scorer", "policy"):  # in the type of the shipped policy
        assert load_file(tmp_path / model / "model.safetensors")["model.embed_tokens.weight"].dtype == torch.bfloat16


def test_killed_process_goes_on_where_it_was(tmp_path: Path) -> None:
    """Ctrl-C, then SIGKILL, then to the end: nothing is done twice."""
    recipe = write_small_recipe(
        tmp_path,
        problems={"train": 40, "test": 2},
        judge=None,
        objective=None,
        evaluation={"samples": 8, "greedy": False},
    )
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "gradatim", "run", str(recipe), "--output", str(folder)]
    lines: list[bytes] = []
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ)
        enough = len(lines) + 3
        while len(lines) < enough and process.poll() is None:
            time.sleep(0.02)
            path = folder / "trees" / "round-1.jsonl"
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        if number == signal.SIGINT:
            assert process.returncode == 130, errors.decode()
            assert errors.decode().strip() == (
                "error: interrupted; what was finished is kept, the same command goes on from there"
            )
        else:
            assert process.returncode == -signal.SIGKILL, errors.decode()
    assert 6 <= len(lines) < 40
    done = subprocess.run(command, capture_output=True, timeout=120, text=True)
    assert done.returncode == 0, done.stderr
    final = (folder / "trees" / "round-1.jsonl").read_bytes().splitlines(keepends=True)
    assert len(final) == 40
    assert final[: len(lines) - 1] == lines[:-1]
    assert len({tree.problem.id for tree in stored(folder, "round-1")}) == 40
    assert "Policies on 2 held-out problems" in done.stdout
