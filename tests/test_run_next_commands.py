"""The commands that a report ends with: none that would find nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradatim.run.about import next_commands
from gradatim.run.context import Run
from gradatim.run.progress import Progress
from gradatim.run.run_folder import RunFolder
from gradatim.tree import EndReason, Problem, Step, Tree
from small_runs import small_recipe


@pytest.mark.parametrize("correct", [True, False])
def test_right_solutions_are_exported_where_the_verifier_calls_some_right_whatever_their_reward(
    tmp_path: Path, correct: bool
) -> None:
    recipe = small_recipe(search=None, objective=None, judge=None, evaluation={"samples": 1, "search": []})
    run = Run(recipe, RunFolder(tmp_path / "run", recipe), Progress())
    tree = Tree(Problem("1", "What?"))
    leaf = tree.add(tree.root, Step((), "So.", end=EndReason.END_OF_TEXT))
    leaf.reward = 0.8 if not correct else 0.3  # the share of tests that a program passes
    leaf.correct = correct
    commands = next_commands(run, [tree])
    assert any("--data right_solutions" in command for command in commands) is correct
