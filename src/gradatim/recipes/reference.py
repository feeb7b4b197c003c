"""The keys of recipes with their meanings, values and defaults, from the schema that checks them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gradatim.errors import GradatimError
from gradatim.recipes.load import AnyRecipe
from gradatim.recipes.recipe import Recipe
from gradatim.suggestions import suggestion

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        name: of the key.
        values: what it can be set to, in words; code in backticks.
        default: as YAML; ``None`` for a key that must be given, and ``"as below"`` for a section.
        meaning: what it means.
    """

    name: str
    values: str
    default: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class KeySection:
    """A part of a recipe.

    Attributes:
        path: the key that holds it, such as ``policy.sampling``; empty for the recipe itself.
        summary: its docstring.
        keys: its keys.
    """

    path: str
    summary: str
    keys: tuple[Key, ...]


def recipe_keys(model: type[AnyRecipe] = Recipe) -> list[KeySection]:
    """All sections of a kind of recipe, the recipe itself first."""
    schema = model.model_json_schema()
    return list(dict.fromkeys(_sections("", schema, schema)))


def find_sections(path: str) -> list[KeySection]:
    """The sections at a path of a run's recipe, such as ``learn`` or ``policy.server``; all of them for ``""``.

    Raises:
        GradatimError: if there is none.
    """
    known = recipe_keys()
    found = [section for section in known if not path or section.path == path]
    if not found:
        values = {f"{section.path}.{key.name}".strip("."): key.values for section in known for key in section.keys}
        if "gradatim parts" in values.get(path, ""):
            raise GradatimError(f"{path!r} is {values[path].replace('`', '')}")
        paths = list(dict.fromkeys(section.path for section in known if section.path))
        raise GradatimError(f"recipes have no section {path!r}; {suggestion(path, paths)}")
    return found


def _sections(path: str, part: Schema, schema: Schema) -> Iterator[KeySection]:
    """The section ``part`` at ``path``, and those below it."""
    keys = tuple(
        Key(
            name,
            _values(value, schema),
            None if name in part.get("required", ()) else _default(value),
            value.get("description") or next(iter(_kinds(value, schema)), {}).get("description", ""),
        )
        for name, value in part["properties"].items()
    )
    yield KeySection(path, part.get("description", ""), keys)
    for name, value in part["properties"].items():
        for below in _kinds(value, schema):
            yield from _sections(f"{path}.{name}" if path else name, below, schema)


def _kinds(value: Schema, schema: Schema) -> list[Schema]:
    """The sections that a key's value can be; none for plain values."""
    if "$ref" in value:
        return [schema["$defs"][value["$ref"].rpartition("/")[2]]]
    if "properties" in value:
        return [value]
    if value.get("type") == "array":
        return _kinds(value.get("items", {}), schema)
    if isinstance(named := value.get("additionalProperties", value.get("patternProperties")), dict):
        return _kinds(named if "patternProperties" not in value else next(iter(named.values())), schema)
    return [kind for option in value.get("anyOf", ()) for kind in _kinds(option, schema)]


def _default(value: Schema) -> str:
    default = value.get("default")
    if isinstance(default, dict):
        return "as below"
    return default if isinstance(default, str) and default else json.dumps(default)


def _values(value: Schema, schema: Schema) -> str:
    """What a key can be set to, in words."""
    if "parts" in value:
        return f"a part: {', '.join(f'`{name}`' for name in value['parts'])} (`gradatim parts {value['title']}`)"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if "$ref" in value:
        return "a section"
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_values(each, schema) for each in value["anyOf"]))
    if value.get("type") == "array":
        return f"a list: {_values(value['items'], schema)}" if "items" in value else "a list"
    names = {
        "integer": "whole number", "number": "number", "string": "text", "boolean": "true or false",
        "object": "a section",
    }  # fmt: skip
    return names.get(value.get("type", "null"), "null") + _bounds(value)


def _bounds(value: Schema) -> str:
    words = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
    bounds = [f"{word} {value[key]:g}" for key, word in words.items() if key in value]
    return f" {' and '.join(bounds)}" if bounds else ""
