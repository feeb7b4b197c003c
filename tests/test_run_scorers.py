"""Scorers in a run: what they read is told apart from what the policy costs, and what they cannot do is told early."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gradatim.errors import GradatimError
from gradatim.policies.transformers import TransformersPolicy
from gradatim.run import Progress, run_recipe
from gradatim.store import TreeStore
from small_runs import small_recipe

EVALUATION = {"samples": 4, "pass_at": [1], "best_of": [4], "majority": [4], "greedy": False}

READ = {"uncertainty": {"model": "scorer"}}
WORDS = {"self_evaluation": {"prompt": "\n", "right": " 1 2", "wrong": " 2"}}


def run(folder: Path, scorer: Any, **changes: Any) -> str:
    """The output of a run that evaluates by a scorer, and learns nothing."""
    seen = io.StringIO()
    nothing_learned = {"problems": {"test": 2}, "search": None, "judge": None, "objective": None}
    recipe = small_recipe(**{**nothing_learned, "evaluation": {**EVALUATION, "scorer": scorer}, **changes})
    run_recipe(recipe, folder, progress=Progress(Console(file=seen, width=400)))
    return seen.getvalue()


def test_what_the_policy_reads_as_a_scorer_is_no_cost_of_sampling_alone(tmp_path: Path) -> None:
    run(tmp_path, {"self_evaluation": {"prompt": "\n", "right": " 1", "wrong": " 2"}})
    trees = list(TreeStore(tmp_path / "trees" / "evaluate-base.jsonl"))
    results = json.loads((tmp_path / "report.json").read_text())["search"]
    sampling, best = (next(each for each in results if each["method"] == name) for name in ("sampling", "best of n"))
    prompts = sum(len(tree.root.step.tokens) for tree in trees) / len(trees)
    assert sampling["spending"]["policy"]["read"] == prompts
    read = sum(tree.budget.read("policy scoring") for tree in trees) / len(trees)
    assert best["spending"]["policy scoring"]["read"] == pytest.approx(read)
    assert read > 0


def test_votes_are_not_weighted_by_scores_below_0_and_a_warning_says_so(tmp_path: Path) -> None:
    seen = run(tmp_path, {"uncertainty": {"measure": "log_probability", "over": "path"}})
    assert "votes weighted by 'uncertainty' are left out, since it gave scores below 0" in seen
    report = json.loads((tmp_path / "report.json").read_text())
    assert "weighted majority" not in {each["method"] for each in report["search"]}


def test_solutions_that_a_scorer_left_unscored_are_told_of(tmp_path: Path) -> None:
    own = Path(__file__).with_name("test_scorers_wrappers.py")
    seen = run(tmp_path, {"name": f"{own}:Given", "key": "silent", "scores": {}})
    (tree, *_) = trees = list(TreeStore(tmp_path / "trees" / "evaluate-base.jsonl"))
    finished = sum(leaf.multiplicity for tree in trees for leaf in tree.solutions())
    assert f"{finished} of {finished} (100.0 %) of the finished solutions have no score of 'silent'" in seen
    assert "silent" not in tree.nodes[-1].scores


def test_steps_that_a_scorer_gave_no_value_are_told_of(tmp_path: Path) -> None:
    own = Path(__file__).with_name("test_scorers_wrappers.py")
    silent = {"name": "scored", "key": "silent", "scorer": {"name": f"{own}:Given", "scores": {}}}
    judged = {"evaluation": {**EVALUATION, "scorer": "process_reward"}, "judge": {}, "values": ["backup", silent]}
    grown = {"search": {"name": "grow", "branching": [4, 3, 3]}, "problems": {"train": 5, "test": 1}}
    seen = run(tmp_path, None, **judged, **grown)
    steps = sum(len(tree) - 1 for tree in TreeStore(tmp_path / "trees" / "round-1.jsonl"))
    assert f"{steps} of {steps} (100.0 %) of the steps have no value 'silent' and teach nothing" in seen


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation": {**EVALUATION, "scorer": {"self_evaluation": {"prompt": "Right? "}}}}, "no tokens for part of"),
        (
            {"evaluation": {**EVALUATION, "scorer": {"delta": {"scorer": WORDS}}}},
            "' 1 2' is 2 tokens in the model's tokenizer",
        ),
        ({"values": [{"scored": {"scorer": {"clip": {"scorer": "value_head", "threshold": 0.5}}}}]}, "no head 'value'"),
        (
            {
                "evaluation": {**EVALUATION, "scorer": {"ensemble": {"scorers": ["process_reward", READ]}}},
                "models": {"scorer": {"model": "shipped:countdown-reward"}},
            },
            "judges and does not write: it has the weights score.bias of a reward model; name a language model",
        ),
        (
            {"values": [{"scored": {"scorer": {"calibrated": {"scorer": "uncertainty", "calibration": "./none"}}}}]},
            "none",
        ),
    ],
)
def test_scorers_that_cannot_work_are_told_of_before_the_first_token(
    changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a token was written")

    monkeypatch.setattr(TransformersPolicy, "extend", refuse)
    if "values" in changes:
        changes = {**changes, "search": {"name": "grow", "branching": [2]}}
    if "models" in changes:
        changes = {**changes, "judge": None, "objective": None, "search": None, "problems": {"test": 2}}
    with pytest.raises(GradatimError, match=said):
        run_recipe(small_recipe(**changes), tmp_path, progress=Progress(Console(file=io.StringIO())))
