"""What a run is measured against: its report and plots name the truth that the task knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gradatim.evaluation import plots
from gradatim.run import run_recipe
from gradatim.tasks.word_problems import WordProblems
from small_runs import small_recipe


def test_a_run_on_word_problems_says_that_steps_are_right_and_not_what_can_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: list[str] = []
    figure = plots._figure

    def noted(title: str, x_label: str, y_label: str) -> Any:
        labels.append(y_label)
        return figure(title, x_label, y_label)

    monkeypatch.setattr(plots, "_figure", noted)
    recipe = small_recipe(
        task={"name": "word_problems", "operations": [1, 2]},
        policy={"model": "shipped:word-problems", "device": "cpu"},
        objective=None,
        evaluation={"samples": 4, "pass_at": [1], "best_of": [4], "majority": [4], "in_flight": 1},
        problems={"train": 3, "validation": 2, "test": 2},
        search={"name": "grow", "branching": [3, 2]},
        trees={"in_flight": 1},
    )
    run_recipe(recipe, tmp_path / "run")
    value = json.loads((tmp_path / "run" / "report.json").read_text())
    assert value["labels"]["truth"] == value["prm"]["truth"] == "steps_right"
    page = " ".join((tmp_path / "run" / "report.md").read_text(encoding="utf-8").split())
    assert "can still reach" not in page
    assert "% have no wrong step)" in page
    assert "% of the steps are right, and so are all steps before them." in page
    assert "share of states that have no wrong step" in labels
    assert not hasattr(WordProblems, "reachable")
