"""A recipe that goes the whole way in seconds, with the policy that ships."""

from __future__ import annotations

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
    "search-beam-2-2-last": 4,
}


def small_content() -> dict[str, Any]:
    """One problem in flight, so that the numbers of a run do not depend on where it was interrupted."""
    return {
        "name": "small",
        "task": {"name": "countdown"},
        "policy": {"model": "shipped:countdown", "device": "cpu", "sampling": {"max_step_tokens": 16, "max_steps": 4}},
        "problems": {"train": 6, "validation": 3, "test": 4},
        "search": {"name": "grow", "branching": [4, 3, 2]},
        "trees": {"in_flight": 1},
        "scorer": {
            "training": {"learning_rate": 1.0e-3, "tokens_per_batch": 256, "evaluate_every": 2, "save_every": 2}
        },
        "supervision": {"pairs": {"mode": "all", "min_gap": 0.1}},
        "objective": {
            "name": "step_dpo",
            "training": {"learning_rate": 1.0e-4, "tokens_per_batch": 256, "evaluate_every": 2, "save_every": 2},
        },
        "evaluation": {
            "samples": 4,
            "pass_at": [1, 4],
            "best_of": [2, 4],
            "majority": [4],
            "search": [{"name": "beam", "width": 2, "branch": 2}],
            "in_flight": 1,
        },
    }


def small_recipe(**changes: Any) -> Recipe:
    recipe = parse_recipe({**small_content(), **changes}, "small")
    assert isinstance(recipe, Recipe)
    return recipe


def write_small_recipe(folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**small_content(), **changes}), encoding="utf-8")
    return path
