"""Recipes: short YAML files that say what a run does."""

from gradatim.recipes.comparison import Comparison, Method
from gradatim.recipes.load import find_recipe, load_as, load_recipe, parse_recipe, shipped_recipes, shipped_studies
from gradatim.recipes.overrides import apply_override
from gradatim.recipes.pretrain import PretrainRecipe
from gradatim.recipes.recipe import Recipe
from gradatim.recipes.study import Study

__all__ = [
    "Comparison",
    "Method",
    "PretrainRecipe",
    "Recipe",
    "Study",
    "apply_override",
    "find_recipe",
    "load_as",
    "load_recipe",
    "parse_recipe",
    "shipped_recipes",
    "shipped_studies",
]
