"""Finding, reading and checking recipes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gradatim.errors import GradatimError
from gradatim.recipes.explain import explain
from gradatim.recipes.pretrain import PretrainRecipe
from gradatim.recipes.recipe import Recipe
from gradatim.suggestions import suggestion

_FOLDER = Path(__file__).parent / "library"
_KINDS: dict[str, type[Recipe] | type[PretrainRecipe]] = {"run": Recipe, "pretrain": PretrainRecipe}


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe | PretrainRecipe:
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
        raise GradatimError(f"the recipe {str(path)!r} is not YAML: {_yaml_reason(error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise GradatimError(f"the recipe {str(path)!r} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise GradatimError(f"the recipe {str(path)!r} is empty or no mapping; begin it with 'name:' and 'task:'")
    for override in overrides:
        apply_override(content, override)
    return parse_recipe(content, str(source))


def parse_recipe(content: dict[str, Any], name: str) -> Recipe | PretrainRecipe:
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
    shipped = shipped_recipes()
    if str(source) in shipped:
        return shipped[str(source)]
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise GradatimError(f"{str(source)!r} is a folder, not a recipe; name its recipe file, such as recipe.yaml")
    raise GradatimError(f"there is no recipe or file {str(source)!r}; {suggestion(str(source), list(shipped))}")


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set one key of a recipe's content in place, from ``"a.b=value"``; numbers count places in lists.

    Raises:
        GradatimError: if it is not of this form, or leads through something that has no keys.
    """
    keys, equals, text = override.partition("=")
    names = [name.strip() for name in keys.split(".")]
    if not equals or not all(names):
        raise GradatimError(f"cannot understand {override!r}; write --set section.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise GradatimError(f"the value in {override!r} is not YAML: {_yaml_reason(error)}") from error
    place: Any = content
    for depth, name in enumerate(names[:-1]):
        following = _get(place, name)
        if following is None and isinstance(place, dict):
            following = place[name] = {}
        if not isinstance(following, dict | list):
            raise GradatimError(f"cannot set {keys.strip()!r}: {'.'.join(names[: depth + 1])!r} has no keys of its own")
        place = following
    _put(place, names[-1], value, keys.strip())


def _get(place: Any, name: str) -> Any:
    if isinstance(place, list):
        return place[int(name)] if name.isdecimal() and int(name) < len(place) else None
    return place.get(name)


def _put(place: Any, name: str, value: Any, keys: str) -> None:
    if isinstance(place, dict):
        place[name] = value
    elif name.isdecimal() and int(name) < len(place):
        place[int(name)] = value
    else:
        raise GradatimError(f"cannot set {keys!r}: the list has {len(place)} entries, counted from 0")


def _yaml_reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    return str(problem) if mark is None else f"{problem} (line {mark.line + 1}, column {mark.column + 1})"
