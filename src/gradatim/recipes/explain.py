"""A validation error as one sentence: which key, where, and what was probably meant."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gradatim.part import is_type_label
from gradatim.suggestions import suggestion

_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}  # of a section, and of a dataclass of options
_MESSAGES = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "model_type": "must be a section with keys of its own",
    "model_attributes_type": "must be a section with keys of its own",
    "dataclass_type": "must be a section with keys of its own",
    "dict_type": "must be a section with keys of its own",
}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One sentence about the first thing that is wrong with a recipe of type ``model``."""
    details = error.errors()
    # A misspelt key also makes a required one missing: the misspelt one says more.
    first = min(details, key=lambda detail: detail["type"] not in _UNKNOWN)
    sentence = _sentence(first, model)
    others = len(details) - 1
    return (
        sentence
        if not others
        else f"{sentence} (and {others} more {'thing is' if others == 1 else 'things are'} wrong)"
    )


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, location = detail["type"], detail["loc"]
    if kind in _UNKNOWN:
        owner, path = _walk(model, location[:-1])
        keys = list(_fields(owner)) if owner is not None else []
        return f"unknown key {location[-1]!r} in {_named(path)}; {suggestion(str(location[-1]), keys)}"
    _, path = _walk(model, location)
    if kind in {"missing", "missing_keyword_only_argument"}:
        return f"the key {path[-1]!r} is missing in {_named(path[:-1])}"
    context = detail.get("ctx", {})
    if kind == "literal_error":
        valid = [value.strip(" '") for value in str(context["expected"]).replace(" or ", ",").split(",")]
        return f"{'.'.join(path)} cannot be {detail['input']!r}; {suggestion(str(detail['input']), valid)}"
    if kind == "value_error":
        return f"{_named(path)}: {context['error']}"
    message = _MESSAGES.get(kind) or detail["msg"].replace("Input should", "must").replace(
        "must be a valid", "must be a"
    )
    return f"{'.'.join(path) or 'the recipe'} {message}, but is {detail['input']!r}"


def _named(path: Sequence[str]) -> str:
    return f"{'.'.join(path)!r}" if path else "the recipe"


def _walk(model: type[BaseModel], location: Sequence[int | str]) -> tuple[Any, list[str]]:
    """The model at ``location``, and the keys that a person wrote to get there."""
    annotation: Any = model
    path: list[str] = []
    rest = list(location)
    while True:
        annotation = _stripped(annotation)
        if not rest:
            return (annotation if _is_model(annotation) else None), path
        if get_origin(annotation) in (Union, types.UnionType):
            members = [_stripped(member) for member in get_args(annotation)]
            annotation = next((each for each in members if _is_model(each) and rest[0] in _fields(each)), members[0])
            continue
        key = rest.pop(0)
        path.append(str(key))
        if _is_model(annotation) and key in _fields(annotation):
            annotation = _fields(annotation)[str(key)].annotation
        elif get_origin(annotation) in (list, dict):
            annotation = get_args(annotation)[-1]
        else:
            return None, [*path, *(str(each) for each in rest if not is_type_label(str(each)))]


def _stripped(annotation: Any) -> Any:
    """Without ``Annotated`` and an optional ``None``."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            return _stripped(members[0])
    return annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and hasattr(annotation, "__pydantic_fields__")


def _fields(model: Any) -> dict[str, Any]:
    """The fields of a section or of a dataclass of options."""
    found: dict[str, Any] = model.__pydantic_fields__
    return found
