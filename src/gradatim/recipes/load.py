"""Finding, reading and checking recipes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from gradatim.errors import GradatimError
from gradatim.recipes.comparison import Comparison
from gradatim.recipes.explain import explain
from gradatim.recipes.overrides import apply_override, yaml_reason
from gradatim.recipes.pretrain import PretrainRecipe
from gradatim.recipes.recipe import Recipe
from gradatim.recipes.study import Study
from gradatim.suggestions import suggestion

_FOLDER = Path(__file__).parent / "library"
_STUDIES = Path(__file__).parent / "studies"
AnyRecipe = Recipe | PretrainRecipe | Comparison | Study
Kind = TypeVar("Kind", Recipe, PretrainRecipe, Comparison, Study)
_PURPOSES: dict[type, str] = {
    Recipe: "grows, learns and evaluates",
    PretrainRecipe: "trains a model from scratch",
    Comparison: "compares methods",
    Study: "tests claims of papers",
}
_KINDS: dict[str, type[AnyRecipe]] = {"run": Recipe, "pretrain": PretrainRecipe, "compare": Comparison, "study": Study}

_COMMANDS = {model: "replicate" if kind == "study" else kind for kind, model in _KINDS.items()}


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}


def shipped_studies() -> dict[str, Path]:
    """The studies that come with the package, by name."""
    return {path.stem: path for path in sorted(_STUDIES.glob("*.yaml"))}


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read a recipe.

    Args:
        source: the name of a shipped recipe, or a path to a YAML file.
        overrides: ``"a.b=value"``, the value in YAML; each replaces or adds one key.

    Raises:
        GradatimError: if there is no such recipe, it is not YAML, or a key or value is wrong; says which.
    """
    path = find_recipe(source)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise GradatimError(f"the recipe {str(path)!r} is not YAML: {yaml_reason(error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise GradatimError(f"the recipe {str(path)!r} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise GradatimError(f"the recipe {str(path)!r} is empty or no mapping; begin it with 'name:' and 'task:'")
    for override in overrides:
        apply_override(content, override)
    return parse_recipe(content, str(source))


def load_as(kind: type[Kind], source: str | Path, overrides: Sequence[str] = ()) -> Kind:
    """Read a recipe of one kind; see :func:`load_recipe`.

    Raises:
        GradatimError: also if it is of another kind; names the command that it is for.
    """
    loaded = load_recipe(source, overrides)
    if isinstance(loaded, kind):
        return loaded
    raise GradatimError(
        f"the recipe {str(source)!r} {_PURPOSES[type(loaded)]}; use 'gradatim {_COMMANDS[type(loaded)]} {source}'"
    )


def parse_recipe(content: dict[str, Any], name: str) -> AnyRecipe:
    """Check a recipe's content; ``name`` is what errors call it.

    Raises:
        GradatimError: if a key or value is wrong.
    """
    kind = content.get("kind", "run")
    if kind not in _KINDS:
        raise GradatimError(f"recipe {name!r}: there is no kind {kind!r}; {suggestion(str(kind), list(_KINDS))}")
    model = _KINDS[kind]
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise GradatimError(f"recipe {name!r}: {explain(error, model)}") from error


def find_recipe(source: str | Path) -> Path:
    """The file of a shipped recipe's name or of a path.

    Raises:
        GradatimError: if there is none.
    """
    shipped = shipped_recipes() | shipped_studies()
    if str(source) in shipped:
        return shipped[str(source)]
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise GradatimError(f"{str(source)!r} is a folder, not a recipe; name its recipe file, such as recipe.yaml")
    raise GradatimError(f"there is no recipe or file {str(source)!r}; {suggestion(str(source), list(shipped))}")
