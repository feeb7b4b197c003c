"""Prompt templates: text with ``{field}`` in the fields' places."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gradatim.errors import GradatimError
from gradatim.text.solution_end import NextProblem
from gradatim.tree import Problem

_SPARE = 64  # white space that a restated problem may have beyond the prompt's own
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
        before = self._places.split(text)[0]
        self._before = len(before)  # characters of every prompt that come before its first field
        heading = before.rpartition("\n")[2].strip()
        self._heading = re.compile(rf"^[ \t]*{re.escape(heading)}", re.MULTILINE) if heading else None

    def fill(self, values: Mapping[str, str]) -> str:
        """The prompt with ``values`` in the fields' places."""
        return self._places.sub(lambda place: values[place[0][1:-1]], self.text)

    def next_problem(self, problem: Problem, text: str) -> NextProblem | None:
        """Where a policy's text turns to a next problem under the template's own heading, if it does.

        Policies without an instruction to stop go on with the pattern of their prompt ("Question: ...", "Problem:
        ..."). A heading under which the problem itself is restated begins no next problem; one with nothing behind it
        yet is not decided.
        """
        if self._heading is None:
            return None
        own = _squashed(problem.prompt[self._before :])
        for heading in self._heading.finditer(text):
            behind = _squashed(text[heading.end() : heading.end() + len(own) + _SPARE])
            shared = min(len(behind), len(own))
            # Of a problem that was not put by this template, only its place tells that it is restated.
            restated = behind[:shared] == own[:shared] if own else not text[: heading.start()].strip()
            if not restated:
                return NextProblem(heading.start(), heading.end())
        return None

    def first_solution(self, problem: Problem, text: str) -> str:
        """A policy's text up to where it turns to a next problem: what it answers to itself is no part of the
        solution."""
        following = self.next_problem(problem, text)
        return text if following is None else text[: following.start]


def _squashed(text: str) -> str:
    """The text as it is compared: without capitals and with single spaces."""
    return " ".join(text.casefold().split())


def fields_of(template: str) -> list[str]:
    """The names in single braces in a template, in their order."""
    return list(dict.fromkeys(_FIELD.findall(template)))
