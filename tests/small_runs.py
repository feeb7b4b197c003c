"""A recipe that goes the whole way in seconds, with the policy that ships."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from gradatim.recipes import Recipe, parse_recipe

TREE_STORES = {
    "round-1": 6,
    "round-1-validation": 3,
    "evaluate-base": 4,
    "evaluate-base-greedy": 4,
    "evaluate-step-dpo": 4,
    "evaluate-step-dpo-greedy": 4,
    "search-beam-width-2-branch-2": 4,
}
_JUDGE_TRAINING = {"learning_rate": 1.0e-3, "tokens_per_batch": 256, "evaluate_every": 2, "save_every": 2}
_POLICY_TRAINING = {"learning_rate": 1.0e-4, "tokens_per_batch": 256, "evaluate_every": 2, "save_every": 2}
_DATA: dict[str, list[Any]] = {
    "dpo": ["solution_pairs"],
    "policy_gradient": ["trajectory_advantages"],
    "sft": ["right_solutions"],
    "step_dpo": [{"name": "sibling_pairs", "pairing": "all", "min_gap": 0.1}],
}


def small_content(
    *,
    judge: Mapping[str, Any] | None = {},
    objective: Mapping[str, Any] | None = {},
    demonstrations: Mapping[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """One problem in flight, so that the numbers of a run do not depend on where it was interrupted.

    Args:
        judge: the reward model: its ``model`` (the policy), whether to ``train`` it, on which ``data``, with which
            ``training``; ``None`` for none.
        objective: how the policy learns: the objective's options, and ``data`` and ``training``; ``None`` for not.
        demonstrations: the training on demonstrations before.
        changes: other keys of the recipe.
    """
    models: dict[str, Any] = {}
    learn: list[dict[str, Any]] = []
    evaluation: dict[str, Any] = {"samples": 4, "pass_at": [1, 4], "best_of": [2, 4], "majority": [4], "in_flight": 1}
    if demonstrations is not None:
        learn.append({"objective": "sft", **demonstrations})
    if judge is not None:
        models["scorer"] = {"model": judge.get("model", "policy")}
        evaluation["search"] = [{"name": "beam", "width": 2, "branch": 2}]
        if judge.get("train", True):
            data, training = judge.get("data", ["step_labels"]), judge.get("training", _JUDGE_TRAINING)
            learn.append({"model": "scorer", "objective": "process_reward", "data": data, "training": training})
    if objective is not None:
        options = {key: value for key, value in objective.items() if key not in ("data", "training")}
        options = {"name": "step_dpo", **options}
        data, training = objective.get("data", _DATA[options["name"]]), objective.get("training", _POLICY_TRAINING)
        learn.append({"model": "policy", "objective": options, "data": data, "training": training})
    learn = deepcopy(learn)
    evaluation = changes.pop("evaluation", evaluation)
    if judge is not None:
        evaluation = {"scorer": "process_reward", **evaluation}
    return {
        "name": "small",
        "task": {"name": "countdown"},
        "policy": {"model": "shipped:countdown", "device": "cpu", "sampling": {"max_step_tokens": 16, "max_steps": 4}},
        "models": models,
        "problems": {"train": 6, "validation": 3, "test": 4},
        "search": {"name": "grow", "branching": [4, 3, 2]},
        "trees": {"in_flight": 1},
        "learn": learn,
        "evaluation": evaluation,
        **changes,
    }


def small_recipe(**changes: Any) -> Recipe:
    """The recipe of :func:`small_content`."""
    recipe = parse_recipe(small_content(**changes), "small")
    assert isinstance(recipe, Recipe)
    return recipe


def write_small_recipe(folder: Path, **changes: Any) -> Path:
    """A file with that recipe."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(small_content(**changes)), encoding="utf-8")
    return path
