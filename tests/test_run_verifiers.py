"""The recipes of trained verifiers run: what is to stay as it is, stays, and their scores are on the trees."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file

from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.recipes import Recipe, load_recipe
from gradatim.recipes.load import find_recipe, shipped_recipes
from gradatim.run import Progress, run_recipe
from gradatim.store import TreeStore

SMALL = (
    "problems={train: 4, test: 2}",
    "evaluation.samples=2",
    "evaluation.greedy=false",
    "learn.0.training={learning_rate: 1.0e-3, epochs: 2, tokens_per_batch: 128}",
)
SYSTEMS = {
    "alphamath", "free-process-rewards", "grace", "lets-verify", "outcome-reward", "q-star", "spa-rl", "trajselector",
    "tree-plv",
}  # fmt: skip


def run(name: str, folder: Path, *changes: str) -> Path:
    recipe = load_recipe(name, (*SMALL, *changes))
    assert isinstance(recipe, Recipe)
    run_recipe(recipe, folder, progress=Progress(Console(file=io.StringIO())))
    return folder


def history(folder: Path, stage: str) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((folder / "stages" / f"{stage}.json").read_text())["history"]
    return found


@pytest.mark.parametrize("name", sorted(SYSTEMS & shipped_recipes().keys()))
def test_the_recipes_are_short_and_name_their_papers(name: str) -> None:
    assert len(find_recipe(name).read_text(encoding="utf-8").splitlines()) <= 40
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    assert recipe.paper is not None
    assert recipe.paper.startswith("arXiv:")


def test_a_verifier_of_hidden_states_leaves_the_policy_as_it_is(tmp_path: Path) -> None:
    run("trajselector", tmp_path, "search.n=6", "evaluation.search=[beam]")
    before, after = (
        load_file(Path(of) / "model.safetensors") for of in (resolve_model("shipped:countdown"), tmp_path / "policy")
    )
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    heads = load_file(tmp_path / "policy" / "heads.safetensors")
    assert heads.keys() == {f"verifier.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    for tree in TreeStore(tmp_path / "trees" / "search-beam.jsonl"):
        assert any("value_head" in node.scores for node in tree.nodes)
        assert list(tree.budget.accounts) == ["policy"], "reading the policy's own states costs nothing"


def test_a_discriminator_is_ranked_by_a_margin_and_mixed_with_the_likelihood(tmp_path: Path) -> None:
    run("grace", tmp_path, "evaluation.search=[{name: beam, width: 1, branch: 2}]")
    assert {"accuracy", "mean_difference"} <= history(tmp_path, "discriminator-1")[-1].keys()
    for tree in TreeStore(tmp_path / "trees" / "search-beam-width-1-branch-2.jsonl"):
        assert {"policy", "discriminator"} <= tree.budget.accounts.keys()
        assert any({"mixture", "process_reward", "uncertainty"} <= node.scores.keys() for node in tree.nodes)


def test_progress_is_the_sum_of_contributions(tmp_path: Path) -> None:
    run("spa-rl", tmp_path, "search.n=6", "evaluation.search=[]")
    assert {"mean_sum", "mean_outcome"} <= history(tmp_path, "estimator-1")[-1].keys()
    scored = [node for tree in TreeStore(tmp_path / "trees" / "evaluate-base.jsonl") for node in tree.nodes[1:]]
    assert any("value_head" in node.scores for node in scored)


def test_what_rates_solutions_must_be_written() -> None:
    with pytest.raises(GradatimError, match="learns from 'proces_reward', which nothing writes"):
        load_recipe("lets-verify", ["learn.0.data.0.rated_by=proces_reward"])
