"""SVPO: the policy and the value head on it learn together, and the head then guides the search."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file

from gradatim.models import resolve_model
from gradatim.recipes import Recipe, load_recipe
from gradatim.recipes.load import find_recipe
from gradatim.run import Progress, run_recipe
from gradatim.store import TreeStore

SMALL = (
    "problems={train: 12, test: 3}",  # without validation the last state is kept
    "evaluation.samples=8",
    "evaluation.search=[{name: beam, width: 2, branch: 2}]",
    "search.simulations=6",
    "learn.0.training={learning_rate: 1.0e-3, epochs: 3, tokens_per_batch: 256}",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("svpo")
    recipe = load_recipe("svpo", SMALL)
    assert isinstance(recipe, Recipe)
    run_recipe(recipe, folder, progress=Progress(Console(file=io.StringIO())))
    return folder


def test_the_recipe_is_short() -> None:
    lines = find_recipe("svpo").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= 20


def test_both_parts_are_trained_and_saved(finished: Path) -> None:
    weights, before = (load_file(Path(folder) / "model.safetensors") for folder in (finished / "policy", _shipped()))
    assert weights.keys() == before.keys(), "the policy is an ordinary model still"
    assert any(not weights[name].float().equal(before[name].float()) for name in before)
    heads = load_file(finished / "policy" / "heads.safetensors")
    assert any(value.abs().sum() > 0 for value in heads.values())
    history = json.loads((finished / "stages" / "policy-1.json").read_text(encoding="utf-8"))["history"]
    assert {"values/accuracies", "values/chosen"} <= history[-1].keys()


def test_the_trained_policy_is_searched_by_its_own_values(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text(encoding="utf-8"))
    assert report["searched"] == "svpo"
    for tree in TreeStore(finished / "trees" / "search-beam-width-2-branch-2.jsonl"):
        assert all("value_head" in node.scores for node in tree.nodes[1:] if not node.step.end.cuts_off)
        assert list(tree.budget.accounts) == ["policy"], "what the policy wrote is not read again by the head on it"


def _shipped() -> str:
    return resolve_model("shipped:countdown")
