"""What a recipe is made of in one line, told from its file alone: nothing is imported and nothing checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def parts_in_words(recipe: Mapping[str, Any]) -> str:
    """The parts of a run by name: the search, what guides it, and what learns by which loss from what.

    Args:
        recipe: its content, as YAML has it; of another kind than a run, or without parts, it gives nothing.
    """
    if recipe.get("kind", "run") != "run":
        return ""
    grown = [_name(recipe["search"])] if recipe.get("search") else []
    if recipe.get("scorer"):
        grown.append(f"under {_name(recipe['scorer'])}")
    grown += [f"and {_name(part)}" for part in recipe.get("regrow") or ()]
    learned = []
    for entry in recipe.get("learn") or ():
        data = " and ".join(dict.fromkeys(map(_name, entry.get("data") or ()))) or "demonstrations"
        learned.append(f"{entry.get('model', 'policy')} by {_name(entry['objective'])} on {data}")
    searched = dict.fromkeys(map(_name, (recipe.get("evaluation") or {}).get("search") or ()))
    online = [f"{recipe['rounds']} rounds"] if recipe.get("online") else []
    parts = [" ".join(grown), "; ".join(learned), *online, ", ".join(searched)]
    return " -> ".join(each for each in parts if each)


def _name(part: Any) -> str:
    """The name of a part in any of its notations."""
    if isinstance(part, Mapping):
        return str(part["name"]) if "name" in part else str(next(iter(part)))
    return str(part)
