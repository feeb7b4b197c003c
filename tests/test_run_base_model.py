"""The recipe for one's own model on a base model of plain documents: what is reported is what the verifier says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from base_model import train_base_model, write_problems
from gradatim.cli.main import app
from gradatim.store import TreeStore
from gradatim.tasks.gsm8k import Gsm8k, extract_answer
from gradatim.tree import EndReason


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("base")
    train_base_model(place / "model")
    write_problems(place / "sums.jsonl")
    return place


def report(folder: Path, output: Path, *settings: str) -> dict[str, Any]:
    given = [
        f"task.source={folder / 'sums.jsonl'}", "task.validation_fraction=0.4", "policy.dtype=float32",
        "problems.test=10", "evaluation.samples=8", "evaluation.pass_at=[1, 8]", "evaluation.majority=[8]", *settings,
    ]  # fmt: skip
    arguments = [part for setting in given for part in ("--set", setting)]
    command = ["run", "gsm8k", "--policy", str(folder / "model"), *arguments, "--output", str(output)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return value


def test_the_reported_accuracy_is_the_verifiers(folder: Path, tmp_path: Path) -> None:
    value = report(folder, tmp_path)
    task = Gsm8k(source=str(folder / "sums.jsonl"), validation_fraction=0.4)
    trees = list(TreeStore(tmp_path / "trees" / "evaluate-base.jsonl"))
    leaves = [leaf for tree in trees for leaf in tree.leaves() for _ in range(leaf.multiplicity)]
    assert len(leaves) == 80
    ends = {leaf.step.end for leaf in leaves}
    assert ends <= {EndReason.ANSWER, EndReason.STOP}
    assert EndReason.ANSWER in ends
    assert not any("Question" in leaf.text for leaf in leaves)
    rewards = [float(extract_answer(leaf.text) == leaf.tree.problem.answer) for leaf in leaves]
    assert rewards == [task.check(leaf.tree.problem, leaf.text).reward for leaf in leaves]
    accuracy = sum(rewards) / len(rewards)
    assert value["base"]["pass_at_1"] == pytest.approx(accuracy)
    assert 0.6 < accuracy < 1.0  # the model is good and not perfect
    written = sum(len(node.step.tokens) for tree in trees for node in tree.nodes[1:])
    drawn = sum(len(step.step.tokens) for leaf in leaves for step in leaf.path()[1:])
    assert written <= drawn == sum(tree.budget.written("policy") for tree in trees)


def test_a_limit_after_the_answer_changes_nothing(folder: Path, tmp_path: Path) -> None:
    roomy = report(folder, tmp_path / "roomy")
    tight = report(folder, tmp_path / "tight", "policy.sampling.max_steps=2")
    assert roomy["base"] == tight["base"]
