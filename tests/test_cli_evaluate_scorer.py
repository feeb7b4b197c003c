"""``gradatim evaluate-scorer``: what it prints and writes, that it goes on, and what it refuses."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gradatim.cli.main import app
from json_lines import write_lines
from step_solutions import TextScorer

PROBLEMS = [
    {"id": f"gsm8k-{number}", "problem": f"Problem {number}", "steps": ["good", "bad" if number % 2 else "fine"],
     "label": 1 if number % 2 else -1, "final_answer_correct": number % 2 == 0}
    for number in range(6)
]  # fmt: skip


def call(*arguments: object) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(app, ["evaluate-scorer", *map(str, arguments)], env={"COLUMNS": "200"})


def refused(*arguments: object) -> str:
    """The sentence with which the command fails."""
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return str(lines[0])


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[TextScorer]:
    """Scorers that the command loaded; each knows bad steps."""
    scorers: list[TextScorer] = []

    def load_scorer(model: str, *, layout: str, **placement: Any) -> TextScorer:
        assert layout in ("auto", "separator")
        scorers.append(TextScorer(lambda question, text: 0.2 if "bad" in text else 0.8))
        return scorers[-1]

    monkeypatch.setattr("gradatim.models.resolve_model", lambda name: name)
    monkeypatch.setattr("gradatim.scorers.process_reward.ProcessRewardScorer.from_pretrained", load_scorer)
    return scorers


def test_a_report_is_printed_and_written(loaded: list[TextScorer], tmp_path: Path) -> None:
    data, output = write_lines(tmp_path / "data.jsonl", PROBLEMS), tmp_path / "out"
    result = call("judge", "--benchmark", "process_bench", "--data", data, "--output", str(output))
    assert result.exit_code == 0, result.output
    lines = [line.replace("│", " ").split() for line in result.stdout.splitlines()]
    assert ["average", "F1", "100.0"] in [line[:3] for line in lines]
    report = json.loads((output / "report.json").read_text())
    assert report["results"]["judge"]["average_f1"] == 1.0
    assert report["results"]["constant scores"]["subsets"]["gsm8k"]["error_accuracy"] == 0.0
    assert set(report["results"]) == {"judge", "random scores", "constant scores", "length scores", "fewer steps"}
    assert report["settings"]["records"] == 6
    assert "| average F1 | 100.0 |" in (output / "report.md").read_text()


def test_what_was_scored_is_not_scored_again(loaded: list[TextScorer], tmp_path: Path) -> None:
    data, output = write_lines(tmp_path / "data.jsonl", PROBLEMS), tmp_path / "out"
    options = ("judge", "--benchmark", "process_bench", "--data", data, "--output", str(output))
    assert call(*options, "--set", "limit=2").exit_code == 0
    drawn = {question for question, _ in loaded[0].asked}
    assert len(drawn) == 2
    assert json.loads((output / "report.json").read_text())["settings"]["records"] == 2
    assert "2 of 6 solutions were scored before" in call(*options).stdout
    assert {question for question, _ in loaded[1].asked} == {f"Problem {number}" for number in range(6)} - drawn
    assert call(*options, "--set", "threshold=auto").exit_code == 0
    assert len(loaded) == 2  # no model is needed where all scores are known
    report = json.loads((output / "report.json").read_text())
    assert report["results"]["judge"]["threshold"] == 0.8
    assert "holds the scores of 'judge', not of 'other'" in refused("other", *options[1:])


def test_scores_of_another_state_of_the_model_are_refused(loaded: list[TextScorer], tmp_path: Path) -> None:
    model = tmp_path / "judge"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    data, output = write_lines(tmp_path / "data.jsonl", PROBLEMS), str(tmp_path / "out")
    options = ("--benchmark", "process_bench", "--data", data, "--output", output, "--layout", "separator")
    assert call(str(model), *options).exit_code == 0
    (model / "README.md").write_text("says more")
    assert "6 of 6 solutions were scored before" in call(str(model), *options).stdout
    assert "with layout separator, dtype float32, not layout separator, dtype bfloat16; delete" in refused(
        str(model), *options, "--dtype", "bfloat16"
    )
    os.utime(model / "model.safetensors", ns=(1, 1))  # saved again, as large as before
    assert "gave before its files changed; delete it, or choose another output folder" in refused(str(model), *options)
    assert len(loaded) == 1


def test_every_benchmark_has_a_table(loaded: list[TextScorer], tmp_path: Path) -> None:
    prmbench = write_lines(
        tmp_path / "circular.jsonl",
        [{"idx": "1", "classification": "circular", "original_question": "q", "modified_question": "q",
          "original_process": ["good"], "modified_process": ["good", "bad"], "error_steps": [2]}],
    )  # fmt: skip
    samples = write_lines(
        tmp_path / "samples.jsonl",
        [{"question": "q", "solutions": [{"steps": ["good"], "correct": True}, {"steps": ["bad"], "correct": False}]}],
    )
    steps = write_lines(
        tmp_path / "steps.jsonl", [{"question": "q", "steps": ["good", "bad"], "labels": [True, False]}]
    )
    for benchmark, data, best in (
        ("prmbench", prmbench, "PRMScore"), ("best_of_n", samples, "best of 2"), ("mp_bench", steps, "overall"),
        ("labelled_steps", steps, "AUC of steps"),
    ):  # fmt: skip
        output = tmp_path / benchmark
        result = call("judge", "--benchmark", benchmark, "--data", data, "--output", str(output))
        assert result.exit_code == 0, result.output
        assert f"| {best} | 100.0 |" in (output / "report.md").read_text()


def test_bad_input_is_one_sentence(loaded: list[TextScorer], tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", PROBLEMS)
    math = write_lines(tmp_path / "math.jsonl", [problem | {"id": "math-0"} for problem in PROBLEMS])
    (tmp_path / "empty.jsonl").touch()

    def sentence(benchmark: str, data: object, *options: str) -> str:
        return refused("judge", "--benchmark", benchmark, "--data", data, "--output", str(tmp_path / "out"), *options)

    assert "has no field 'classification'" in sentence("prmbench", data)
    assert "empty.jsonl' has no records" in sentence("process_bench", str(tmp_path / "empty.jsonl"))
    assert "there is no file or folder" in sentence("process_bench", str(tmp_path / "none.jsonl"))
    assert "threshold must be a valid number" in sentence("process_bench", data, "--set", "threshold=high")
    assert "gsm8k subset, but the data has none" in sentence("process_bench", math, "--set", "threshold=auto")
    steps = write_lines(tmp_path / "steps.jsonl", [{"question": "q", "steps": ["good"], "labels": [True]}])
    assert "no part to choose a threshold on" in sentence("labelled_steps", steps, "--set", "threshold=auto")
    assert "there is no benchmark 'processbench'; did you mean 'process_bench'?" in sentence("processbench", data)
    assert "has no option 'treshold'; did you mean 'threshold'?" in sentence("prmbench", data, "--set", "treshold=1")
    assert "layout must be" in sentence("process_bench", data, "--layout", "mine")
    assert "dtype" in sentence("process_bench", data, "--dtype", "float8")
    assert not loaded  # all of that is found before a model is loaded
