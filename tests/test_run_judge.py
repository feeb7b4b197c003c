"""The recipe of a judge, from the command line: verdicts guide a search, and what cannot be read is told of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from failing_server import serving
from gradatim.cli.main import app
from gradatim.scorers.verdicts import JUDGEMENTS
from gradatim.store import TreeStore
from gradatim.tree import Tree

QUESTIONS = [f"Ann has {n} apples and buys {n + 1} more. How many?" for n in range(2, 12)]
SIZES = [
    "problems.test=4", "evaluation.samples=3", "evaluation.pass_at=[1]", "evaluation.best_of=[3]",
    "evaluation.majority=[]", "policy.sampling.max_step_tokens=8", "policy.sampling.max_steps=3",
    "task.validation_fraction=0.4",
]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    answers = [f"{n} + {n + 1} = {2 * n + 1}\n#### {2 * n + 1}" for n in range(2, 12)]
    rows = [{"question": q, "answer": answer} for q, answer in zip(QUESTIONS, answers, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def adds(text: str, seed: int) -> list[str]:
    """A policy that adds, and is wrong for two of three seeds."""
    if "Ann has " not in text:  # what a run asks to see whether the server answers
        return [" 2"]
    numbers = [int(word) for word in text.rsplit("Ann has ", 1)[1].split() if word.isdigit()][:2]
    steps = ["She", " adds", ".\n", f"#### {sum(numbers) + seed % 3}"]
    return steps[3:] if text.endswith("She adds.\n") else steps


def checks(text: str, seed: int) -> list[str]:
    """A judge that adds again; of a step without a number it says nothing that can be read."""
    if "Step to judge:" not in text:
        return ["ok"]
    problem, _, step = text.partition("Step to judge:\n")
    if "####" not in step:
        return ["Well", "."]
    numbers = [int(word) for word in problem.rsplit("Ann has ", 1)[1].split() if word.isdigit()][:2]
    right = f"#### {sum(numbers)}\n" in step
    return ["I ", "add.\n", "Verdict: ", "correct" if right else "incorrect"]


def run(folder: Path, source: Path, policy: str, judge: str, *more: str) -> Result:
    settings = [f"task.source={source}", f"models.judge.model={judge}", "policy.dtype=float32", *SIZES, *more]
    arguments = [part for setting in settings for part in ("--set", setting)]
    return CliRunner().invoke(app, ["run", "judge", "--policy", policy, *arguments, "--output", str(folder)])


def trees(folder: Path, start: str) -> list[Tree]:
    (path,) = (each for each in (folder / "trees").glob("*.jsonl") if each.stem.startswith(start))
    return list(TreeStore(path))


def test_a_server_s_judge_guides_the_search(source: Path, tmp_path: Path) -> None:
    with serving(adds) as policy, serving(checks) as judge:
        policy.owner = judge.owner = "vllm"
        result = run(tmp_path / "run", source, policy.url, judge.url)
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads((tmp_path / "run" / "report.json").read_text())
    (warning,) = [each for each in value["warnings"] if "off-format" in each and "by sampling" in each]
    assert "of the judgements of 'judge' are off-format: no verdict (" in warning
    for tree in trees(tmp_path / "run", "search-"):
        assert {"policy", "judge"} == set(tree.budget.accounts)
        assert tree.budget.written("judge") > 0
        for node in tree.nodes[1:]:
            said = node.notes[JUDGEMENTS]["judge"]
            assert ("judge" in node.scores) == ("####" in node.step.text) == all("verdict" in each for each in said)
    assert value["base"]["best_of_n"]["3"]["value"] > value["base"]["pass_at_k"]["1"]["value"]
