"""Tasks of one's own that are records and a verifier, described without any code: in a recipe, or in a YAML file.

What that cannot say (problems that are generated, steps of another kind, another verifier) is a Python class: a part
that is a :class:`gradatim.tasks.base.Task`, in a file of one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from gradatim.errors import GradatimError
from gradatim.part import name_of, part
from gradatim.records import MalformedRecordError, Record, text_or_number_field
from gradatim.suggestions import suggestion
from gradatim.tasks.from_records import RecordTask
from gradatim.tasks.templates import Template, fields_of
from gradatim.tasks.verifiers import Verifier, make_verifier
from gradatim.text.solution_end import SolutionEnd
from gradatim.tree import Problem

_SOLUTION = "solution"  # the field of a record that holds a worked solution


@part
class Records(RecordTask):
    """A task of one's own that is described here: records, a prompt, a verifier.

    A problem's ``data`` holds the ``fields`` that the template shows, and as ``question`` what a model in conversation
    is asked: the one field's text, or the whole prompt where the template shows several. A worked ``solution`` of the
    record, if it has one, is kept to fine-tune on.
    """

    source: str
    template: str
    """The prompt, with `{field}` in the place of each field that it shows; it cannot show the answer."""
    verifier: str | dict[str, Any]
    """A verifier's name, or a section with its `name` and its options."""
    answer_field: str = "answer"
    """The field that holds the reference answer, text or a number."""
    title: str | None = None
    """What problems' ids and messages call the task."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end a solution wherever they stand, beside a complete answer and the heading of a next problem; they
    are no part of it."""

    def __post_init__(self) -> None:
        if self.answer_field in self.prompt_template.fields:
            raise GradatimError(f"the template shows the reference answer {{{self.answer_field}}}; leave it out")
        _ = self.judge  # one that is not there is refused now

    @property
    def name(self) -> str:
        return self.title or name_of(self)

    @cached_property
    def prompt_template(self) -> Template:
        fields = fields_of(self.template)
        if not fields:
            raise GradatimError(
                f"the template {self.template!r} shows no field; write one in braces, such as {{question}}"
            )
        return Template(self.template, fields)

    @cached_property
    def solution_end(self) -> SolutionEnd:
        return replace(super().solution_end, stop=self.stop)

    def held_out_by(self, problem: Problem) -> str:
        return "\n".join(problem.data["fields"].values())

    @cached_property
    def judge(self) -> Verifier:
        return _verifier_of(self.verifier)

    def read(self, id: str, record: Record) -> Problem:
        shown = {field: _value(record, field) for field in self.prompt_template.fields}
        prompt = self.prompt_template.fill(shown)
        question = next(iter(shown.values())) if len(shown) == 1 else prompt
        data: dict[str, Any] = {"fields": shown, "question": question}
        if isinstance(record.get(_SOLUTION), str) and _SOLUTION not in shown:
            data[_SOLUTION] = record[_SOLUTION]
        return Problem(id, prompt, _value(record, self.answer_field), data)


def _verifier_of(verifier: str | Mapping[str, Any]) -> Verifier:
    if isinstance(verifier, str):
        return make_verifier(verifier)
    options = dict(verifier)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise GradatimError("the verifier has no 'name'; write 'verifier: number' or 'verifier: {name: regex, ...}'")
    return make_verifier(name, options)


def _value(record: Record, field: str) -> str:
    """A field's value as text.

    Raises:
        MalformedRecordError: if there is none, or neither text nor a number.
    """
    if field not in record:
        raise MalformedRecordError(f"has no field {field!r}; {suggestion(field, [str(name) for name in record])}")
    return text_or_number_field(record, field)
