"""The recipes whose values are sampled run from trees to a guided search, each with what its paper defines."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from gradatim.recipes import Recipe, load_recipe
from gradatim.recipes.load import find_recipe
from gradatim.run import Progress, run_recipe
from gradatim.store import TreeStore

SMALL = (
    "problems={train: 5, test: 2}",
    "evaluation.samples=2",
    "evaluation.greedy=false",
    "evaluation.search=[{name: beam, width: 2, branch: 2}]",
)
TRAINING = "{learning_rate: 1.0e-3, epochs: 1, tokens_per_batch: 512}"


def finished(name: str, folder: Path, *overrides: str) -> TreeStore:
    recipe = load_recipe(name, (*SMALL, f"learn.0.training={TRAINING}", *overrides))
    assert isinstance(recipe, Recipe)
    console = Console(file=io.StringIO())
    run_recipe(recipe, folder, progress=Progress(console))
    assert "no value" not in console.file.getvalue()  # type: ignore[attr-defined]
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["labels"]["accuracy"] > 0.8, "against the exact oracle"
    return TreeStore(folder / "trees" / "round-1.jsonl")


def test_omegaprm(tmp_path: Path) -> None:
    steps = [node for tree in finished("omegaprm", tmp_path, "search.n=6") for node in tree.nodes[1:]]
    assert any("first_error" in node.notes for node in steps)
    assert {node.scores["value"] for node in steps if "value" in node.scores} == {0.0, 1.0}


def test_math_shepherd(tmp_path: Path) -> None:
    for tree in finished("math-shepherd", tmp_path, "search.n=2", "values.0.scorer.rollouts=4"):
        valued = [node for node in tree.nodes[1:] if "value" in node.scores]
        assert valued
        assert all(node.counts["value"] >= 4 for node in valued if node.open)


def test_pav(tmp_path: Path) -> None:
    small = ("search.branching=[2, 2, 1]", f"learn.1.training={TRAINING}")
    for tree in finished("pav", tmp_path, *small):
        assert list(tree.budget.accounts) == ["policy", "prover"]
        assert all({"value", "prover"} <= node.scores.keys() for node in tree.nodes[1:])
    for tree in TreeStore(tmp_path / "trees" / "search-beam-width-2-branch-2.jsonl"):
        assert list(tree.budget.accounts) == ["policy", "proving", "own"]
        for node in tree.nodes[1:]:
            own = node.scores["process_reward"]
            before = 0.5 if node.depth == 1 else node.path()[-2].scores["prover"]
            guided = own + 0.5 * (node.scores["prover"] - before) if node.open else own
            assert node.scores["progress"] == pytest.approx(guided)


@pytest.mark.parametrize("name", ["omegaprm", "math-shepherd", "pav"])
def test_the_recipe_is_short(name: str) -> None:
    assert len(find_recipe(name).read_text(encoding="utf-8").splitlines()) <= 40
