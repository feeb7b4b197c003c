"""An mkdocs hook: the keys of recipes, from :mod:`gradatim.recipes.reference`.

The marker ``<!-- recipe keys -->`` becomes a section for each part of a recipe, with a table of its keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_MARKER = "<!-- recipe keys -->"
_PARTS = re.compile(r"`gradatim parts ([\w/]+)`")
_REFERENCE = re.compile(r":(?:class|func):`~?([\w.]*?)(\w+)`")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Put the keys in the place of the marker."""
    if _MARKER not in markdown:
        return markdown
    from gradatim.recipes import Comparison, PretrainRecipe, Recipe, Study

    kinds = {
        "Recipes of a run": Recipe,
        "Recipes of a comparison": Comparison,
        "Recipes of a study": Study,
        "Recipes that train from scratch": PretrainRecipe,
    }
    parts = [part for title, kind in kinds.items() for part in _recipe(title, kind)]
    return markdown.replace(_MARKER, "\n\n".join(parts))


def _recipe(title: str, model: Any) -> Iterator[str]:
    from gradatim.recipes.reference import recipe_keys

    for section in recipe_keys(model):
        name = f"### `{section.path}`" if section.path else f"## {title}"
        summary = _REFERENCE.sub(r"[`\2`][\1\2]", section.summary).replace("``", "`")
        rows = []
        for key in section.keys:
            default = "**required**" if key.default is None else key.default
            code = default if default in ("**required**", "as below") else f"`{default}`"
            values = _PARTS.sub(lambda found: f"[options](parts.md#{found[1].replace('/', '')})", key.values)
            cells = (f"`{key.name}`", values, code, " ".join(key.meaning.split()))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        yield "\n\n".join((name, summary, "\n".join(["| key | value | default | |", "|---|---|---|---|", *rows])))
