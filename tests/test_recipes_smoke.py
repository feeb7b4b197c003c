"""Every recipe that ships runs from one end to the other at smoke size."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from gradatim.recipes import Recipe, load_recipe, shipped_recipes
from gradatim.recipes.recipe import POLICY
from gradatim.recipes.smoke import smoke_size
from gradatim.run import Progress, run_recipe

_SHIPPED = "shipped:"


def _runnable() -> list[str]:
    """The recipes whose models all ship with the package; the others need a model of one's own, or the trees of another
    run, and have tests of their own."""
    found = []
    for name in shipped_recipes():
        recipe = load_recipe(name)
        if isinstance(recipe, Recipe):
            models = [each.model for each in recipe.placed_models().values()]
            shipped = all(model == POLICY or model.startswith(_SHIPPED) for model in models)
            if shipped and not hasattr(recipe.task, "trees"):
                found.append(name)
    return found


@pytest.mark.parametrize("name", _runnable())
def test_a_recipe_runs_at_smoke_size(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    small = smoke_size(recipe)
    report = run_recipe(small, tmp_path, progress=Progress(Console(file=io.StringIO())))
    assert report["recipe"] == small.model_dump(mode="json")
    assert (tmp_path / "report.md").is_file()
    for learn in small.learn:
        assert any(tmp_path.glob(f"{learn.model}*")) or any(tmp_path.glob("fine-tuned*")), learn.model
