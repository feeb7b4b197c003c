"""Prompt templates: text with ``{field}`` in the fields' places."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gradatim.errors import GradatimError

_FIELD = re.compile(r"(?<!\{)\{([A-Za-z_][A-Za-z0-9_ -]*)\}(?!\})")


class Template:
    """A prompt with places for a record's fields.

    Only ``{name}`` with the name of one of ``fields`` is a place; all other braces stay as they are, so a template may
    hold worked examples in LaTeX.

    Args:
        text: the template.
        fields: the fields, at least one, each of which must have exactly one place.

    Raises:
        GradatimError: if a field has no place or several.
    """

    def __init__(self, text: str, fields: Sequence[str]) -> None:
        for field in fields:
            if text.count(f"{{{field}}}") != 1:
                raise GradatimError(f"the template {text!r} must contain {{{field}}} exactly once")
        self.text = text
        self.fields = tuple(fields)
        self._places = re.compile("|".join(re.escape(f"{{{field}}}") for field in fields))
        heading = self._places.split(text)[0].rpartition("\n")[2].strip()
        self._heading = re.compile(rf"^[ \t]*{re.escape(heading)}", re.MULTILINE) if heading else None

    def fill(self, values: Mapping[str, str]) -> str:
        """The prompt with ``values`` in the fields' places."""
        return self._places.sub(lambda place: values[place[0][1:-1]], self.text)

    def first_solution(self, text: str) -> str:
        """A policy's text up to where it asks itself a next question under the template's own heading.

        Policies without an instruction to stop go on with the pattern of their prompt ("Question: ...", "Problem:
        ..."); what they answer to themselves is no part of the solution.
        """
        following = None if self._heading is None else self._heading.search(text)
        return text if following is None else text[: following.start()]


def fields_of(template: str) -> list[str]:
    """The names in single braces in a template, in their order."""
    return list(dict.fromkeys(_FIELD.findall(template)))
