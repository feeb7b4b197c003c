"""Single keys of a recipe or options of a part, as the command line sets them: ``section.key=value``."""

from __future__ import annotations

from typing import Any

import yaml

from gradatim.errors import GradatimError


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
        raise GradatimError(f"the value in {override!r} is not YAML: {yaml_reason(error)}") from error
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


def yaml_reason(error: yaml.YAMLError) -> str:
    """What is wrong with a text that is not YAML, and where."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    return str(problem) if mark is None else f"{problem} (line {mark.line + 1}, column {mark.column + 1})"
