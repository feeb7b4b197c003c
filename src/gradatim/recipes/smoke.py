"""A recipe at a size that shows nothing but that everything works."""

from __future__ import annotations

from typing import Any

from gradatim.recipes.recipe import Recipe

_PROBLEMS = {"train": 10, "validation": 2, "test": 3}
_SAMPLES, _DEMONSTRATIONS, _ROUNDS = 2, 16, 2


def smoke_size(recipe: Recipe) -> Recipe:
    """The same recipe with ten problems, two samples, one epoch and two rounds at most: minutes on two CPU cores
    for a small model. What it searches and learns by stays as it is."""
    content = recipe.model_dump(mode="json")
    for split, most in _PROBLEMS.items():
        content["problems"][split] = min(content["problems"][split], most)
    content["rounds"] = min(content["rounds"], _ROUNDS)
    for entry in content["learn"]:
        if entry["demonstrations"] is not None:
            entry["demonstrations"] = min(entry["demonstrations"], _DEMONSTRATIONS)
        entry["validation_samples"] = min(entry["validation_samples"], 2)
        entry["training"]["epochs"] = min(entry["training"]["epochs"], 1.0)
    if content["online"] is not None:
        content["online"] |= {"problems": content["problems"]["train"], "samples": 1}
    _shrink_evaluation(content["evaluation"])
    return Recipe.model_validate(content)


def _shrink_evaluation(evaluation: dict[str, Any]) -> None:
    samples = min(evaluation["samples"], _SAMPLES)
    evaluation["samples"] = samples
    for counts in ("pass_at", "best_of", "majority"):
        evaluation[counts] = [n for n in evaluation[counts] if n <= samples]
