"""A run that trains and measures a reward model on benchmarks, and samples from no policy."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gradatim.errors import GradatimError
from gradatim.recipes import Recipe, parse_recipe
from gradatim.run import Progress, run_recipe
from gradatim.run.stages import stages_of
from json_lines import write_lines
from small_runs import small_content

SOLUTIONS = [
    {"id": f"gsm8k-{number}", "problem": "Make 46 from 3 5 7 8", "steps": [" 7 * 5 = 35 | 3 8 35", second],
     "label": label}
    for number, (second, label) in enumerate([(" 35 + 8 = 43 | 3 43", -1), (" 35 - 3 = 32 | 8 32", 1)])
]  # fmt: skip


def content(data: Path, **changes: Any) -> dict[str, Any]:
    benchmarks = [{"name": "process_bench", "data": str(data)}]
    problems = {"train": 2, "validation": 0, "test": 0}
    return small_content(objective=None, problems=problems, evaluation={"benchmarks": benchmarks}) | changes


def run(given: dict[str, Any], folder: Path) -> tuple[dict[str, Any], str]:
    recipe, seen = parse_recipe(given, "small"), io.StringIO()
    assert isinstance(recipe, Recipe)
    report = run_recipe(recipe, folder, progress=Progress(Console(file=seen, width=300)))
    return report, seen.getvalue()


def test_a_reward_model_is_trained_and_measured_without_a_policy(tmp_path: Path) -> None:
    data, folder = write_lines(tmp_path / "data.jsonl", SOLUTIONS), tmp_path / "run"
    report, seen = run(content(data), folder)
    assert set(report["stages"]) == {"round-1", "scorer-1", "benchmarks"}
    assert report["policies"] == []
    assert "2 of 2 solutions" in seen
    [measured] = report["benchmarks"]
    assert measured["solutions"] == 2
    assert set(measured["results"]) == {
        "process_reward",
        "random scores",
        "constant scores",
        "length scores",
        "fewer steps",
    }
    assert report["finding"][0].startswith("ProcessBench: gsm8k, error accuracy ")
    assert "| average F1 |" in (folder / "report.md").read_text(encoding="utf-8")
    assert json.loads((folder / "report.json").read_text())["benchmarks"][0]["title"] == "ProcessBench"

    # other options, and a further benchmark of the same solutions: nothing is scored again
    given = content(data)
    given["evaluation"]["benchmarks"] = [{"name": "process_bench", "data": str(data), "threshold": "auto"}] * 2
    again, seen = run(given, folder)
    assert "Scoring" not in seen
    assert [each["figures"]["process_reward"]["average F1"] is None for each in again["benchmarks"]] == [False] * 2

    # another scorer: what the first one said is set aside
    given["learn"][0]["training"] = {**given["learn"][0]["training"], "epochs": 2}
    _, seen = run(given, folder)
    assert "The stage benchmarks is done anew: learn.0.training.epochs was 1.0 and is now 2.0" in seen
    assert (folder / "superseded" / "benchmarks-1" / "benchmarks" / "scores.jsonl").is_file()


def test_benchmarks_are_checked_before_anything_runs(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", [SOLUTIONS[0] | {"label": 7}])
    with pytest.raises(GradatimError, match=r"evaluation\.benchmarks, process_bench: line 1 of .* has the label 7"):
        run(content(data), tmp_path / "run")
    assert not (tmp_path / "run" / "trees").exists()
    with pytest.raises(GradatimError, match="benchmarks measure a scorer"):
        parse_recipe(
            content(data, evaluation={"benchmarks": content(data)["evaluation"]["benchmarks"], "scorer": None}), "r"
        )
    with pytest.raises(GradatimError, match="there is no benchmark 'processbench'; did you mean 'process_bench'"):
        parse_recipe(content(data, evaluation={"benchmarks": ["processbench"], "scorer": "process_reward"}), "r")


def test_without_test_problems_no_policy_is_measured(tmp_path: Path) -> None:
    given = content(tmp_path)
    given["evaluation"] = {"scorer": "process_reward", "search": ["beam"]}
    recipe = parse_recipe(given, "r")
    assert isinstance(recipe, Recipe)
    assert list(stages_of(recipe)) == ["round-1", "scorer-1"]
