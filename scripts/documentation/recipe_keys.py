"""An mkdocs hook: the keys of recipes, from the schema that checks them.

The marker ``<!-- recipe keys -->`` becomes a section for each part of a recipe, with a table of its keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_MARKER = "<!-- recipe keys -->"
_REFERENCE = re.compile(r":(?:class|func):`~?([\w.]*?)(\w+)`")
_SECTION_OF_DOCSTRING = re.compile(r"\n\s*Attributes:\n(.*)", re.DOTALL)
_ATTRIBUTE = re.compile(r"^\s*(\w+): (.*(?:\n\s{4,}(?!\w+: ).*)*)", re.MULTILINE)
Schema = Mapping[str, Any]


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Put the keys in the place of the marker."""
    if _MARKER not in markdown:
        return markdown
    from gradatim.recipes import PretrainRecipe, Recipe

    parts = [*_recipe("Recipes of a run", Recipe), *_recipe("Recipes that train from scratch", PretrainRecipe)]
    return markdown.replace(_MARKER, "\n\n".join(parts))


def _recipe(title: str, model: Any) -> Iterator[str]:
    schema = model.model_json_schema()
    yield f"## {title}\n\n{_summary(schema)}"
    yield _table(schema, schema)
    # Sections that several kinds of a part share are listed once.
    yield from dict.fromkeys(
        section for key, value in schema["properties"].items() for section in _sections(key, value, schema)
    )


def _sections(path: str, value: Schema, schema: Schema) -> Iterator[str]:
    """The sections at ``path`` and below it: one for each kind that the key may be of."""
    for part in _kinds(value, schema):
        kind = next((f" · {name}: {each['const']}" for name, each in part["properties"].items() if "const" in each), "")
        yield f"### `{path}{kind}`\n\n{_summary(part)}\n\n{_table(part, schema)}"
        for key, below in part["properties"].items():
            yield from _sections(f"{path}.{key}", below, schema)


def _kinds(value: Schema, schema: Schema) -> list[Schema]:
    """The sections that a key's value can be; none for plain values."""
    if "$ref" in value:
        return [schema["$defs"][value["$ref"].rpartition("/")[2]]]
    if value.get("type") == "array":
        return _kinds(value.get("items", {}), schema)
    return [kind for option in (*value.get("oneOf", ()), *value.get("anyOf", ())) for kind in _kinds(option, schema)]


def _table(part: Schema, schema: Schema) -> str:
    meanings = _meanings(part)
    lines = ["| key | value | default | |", "|---|---|---|---|"]
    for key, value in part["properties"].items():
        default = "**required**" if key in part.get("required", ()) else _default(value)
        cells = (f"`{key}`", _values(value, schema), default, meanings.get(key, ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _default(value: Schema) -> str:
    default = value.get("default")
    if isinstance(default, dict):
        return "as below"
    return f"`{default if isinstance(default, str) and default else json.dumps(default)}`"


def _values(value: Schema, schema: Schema) -> str:
    """What a key can be set to, in words."""
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if "$ref" in value or "oneOf" in value:
        return "a section"
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_values(each, schema) for each in value["anyOf"]))
    if value.get("type") == "array":
        return f"a list: {_values(value['items'], schema)}" if "items" in value else "a list"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    return names.get(value.get("type", "null"), "null") + _bounds(value)


def _bounds(value: Schema) -> str:
    words = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
    bounds = [f"{word} {value[key]:g}" for key, word in words.items() if key in value]
    return f" {' and '.join(bounds)}" if bounds else ""


def _summary(part: Schema) -> str:
    """What the section's docstring says, apart from its attributes, with links to what it names."""
    text = _SECTION_OF_DOCSTRING.sub("", part.get("description", ""))
    return _REFERENCE.sub(r"[`\2`][\1\2]", text).replace("``", "`")


def _meanings(part: Schema) -> dict[str, str]:
    listed = _SECTION_OF_DOCSTRING.search(part.get("description", ""))
    found = {} if listed is None else {match[1]: match[2] for match in _ATTRIBUTE.finditer(listed[1])}
    return {name: " ".join(text.split()).replace("``", "`") for name, text in found.items()}
