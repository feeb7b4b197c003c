"""Tasks of one's own that are records and a verifier, described in YAML without any code.

The description names a source of records, a prompt with their fields, the field with the reference answer and a
verifier::

    name: sums
    source: problems.jsonl
    template: "Question: {question}\\nAnswer:\\n"
    answer_field: answer
    verifier: number

What that cannot say (problems that are generated, steps of another kind, another verifier) is a Python class: see
:mod:`gradatim.tasks.loading`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml

from gradatim.errors import GradatimError
from gradatim.records import MalformedRecordError, Record, text_or_number_field
from gradatim.suggestions import suggestion
from gradatim.tasks.base import Verdict
from gradatim.tasks.records import ProblemSource
from gradatim.tasks.steps import check_step_end, split_at
from gradatim.tasks.templates import Template, fields_of
from gradatim.tasks.verifiers import ANSWER_ENDS, Verifier, make_verifier
from gradatim.tree import Problem

_SOLUTION = "solution"  # the field of a record that holds a worked solution


class OwnTask:
    """Problems from records, judged by a verifier of :mod:`gradatim.tasks.verifiers`.

    Args:
        source: a ``.jsonl`` file, a folder of them or a data set's id on the hub, as in
            :class:`gradatim.tasks.records.ProblemSource`.
        template: the prompt, with ``{field}`` in the place of each field that it shows. It cannot show the answer.
        verifier: a verifier's name, or a mapping of its ``name`` and its options.
        answer_field: the field that holds the reference answer, text or a number.
        name: what recipes and ids call the task.
        config: the hub data set's configuration.
        splits: the source's own name for each split that it has; see :class:`gradatim.tasks.records.ProblemSource`.
        step_end: the texts that end a step.
        stop: texts that end a solution wherever they stand, beside a complete final answer and the heading of a next
            problem, which always do; they are no part of it.
        seed: chooses which problems are held out, and the order of shuffled ones.
        validation_fraction: share of ``train`` that is held out as ``validation``, and of a single file as ``test``.
        shuffle: whether problems come in an order of their own.
        on_bad_line: whether a malformed line or record is refused with its line number or skipped with a warning.

    Raises:
        GradatimError: if a local source does not exist, there is no such verifier, or another argument is wrong.
    """

    def __init__(
        self,
        source: str,
        template: str,
        verifier: str | Mapping[str, Any],
        *,
        answer_field: str = "answer",
        name: str = "own",
        config: str | None = None,
        splits: Mapping[str, str] | None = None,
        step_end: Sequence[str] = ("\n",),
        stop: Sequence[str] = (),
        seed: int = 0,
        validation_fraction: float = 0.05,
        shuffle: bool = False,
        on_bad_line: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        self.name = name
        self.step_end = check_step_end(step_end)
        self.template = template
        fields = fields_of(template)
        if not fields:
            raise GradatimError(f"the template {template!r} shows no field; write one in braces, such as {{question}}")
        if answer_field in fields:
            raise GradatimError(f"the template shows the reference answer {{{answer_field}}}; leave it out")
        self._template = Template(template, fields)
        self._answer_field = answer_field
        name_of_verifier, self._verifier = _make_verifier(verifier)
        self.solution_end = replace(
            ANSWER_ENDS[name_of_verifier], next_problem=self._template.next_problem, stop=_check_stop(stop)
        )
        self._source = ProblemSource(
            source,
            self._problem,
            key=lambda problem: "\n".join(problem.data["fields"].values()),
            task=name,
            config=config,
            splits=splits,
            seed=seed,
            validation_fraction=validation_fraction,
            shuffle=shuffle,
            on_bad_line=on_bad_line,
        )

    @classmethod
    def from_yaml(cls, path: str | Path, options: Mapping[str, Any] | None = None) -> OwnTask:
        """The task that a YAML file describes by this class's arguments.

        Args:
            path: the file. A source that lies beside it is found from anywhere.
            options: arguments that replace or add to those of the file.

        Raises:
            GradatimError: if the file is missing or no such description; says which key is wrong.
        """
        path = Path(path).expanduser()
        content = _read_yaml(path)
        if "source" in content:
            content["source"] = _beside(path, content["source"])
        arguments = {"name": path.stem} | content | dict(options or {})
        _check_arguments(arguments, f"the task {str(path)!r}")
        return cls(**arguments)

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``"train"``, ``"validation"`` or ``"test"``, always the same.

        A problem's ``data`` holds the ``fields`` that the template shows, and as ``question`` what a model in
        conversation is asked: the one field's text, or the whole prompt where the template shows several. A worked
        ``solution`` of the record, if it has one, is kept to fine-tune on.

        Raises:
            GradatimError: if the split is unknown or empty, the source is missing or malformed, or a record lacks a
                field.
        """
        return self._source.problems(split, count)

    def ask(self, question: str) -> Problem:
        """A problem whose reference answer is not known, as a person types it.

        Raises:
            GradatimError: if the template shows more than one field.
        """
        if len(self._template.fields) != 1:
            raise GradatimError(f"a problem of the task {self.name!r} has several parts; put it into the task's source")
        prompt = self._template.fill({self._template.fields[0]: question})
        return Problem("question", prompt, None, {"question": question})

    def split_steps(self, text: str) -> list[str]:
        """Divide a solution after each of ``step_end``; joined again the steps are ``text``."""
        return split_at(text, self.step_end)

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Judge a solution by the task's verifier. Never raises.

        Where a model goes on to ask itself a next problem under the template's heading, that part is left out.
        """
        return self._verifier(problem.answer, self._template.first_solution(problem, text))

    def _problem(self, id: str, record: Record) -> Problem:
        shown = {field: _value(record, field) for field in self._template.fields}
        prompt = self._template.fill(shown)
        question = next(iter(shown.values())) if len(shown) == 1 else prompt
        data: dict[str, Any] = {"fields": shown, "question": question}
        if isinstance(record.get(_SOLUTION), str) and _SOLUTION not in shown:
            data[_SOLUTION] = record[_SOLUTION]
        return Problem(id, prompt, _value(record, self._answer_field), data)


def source_of(path: str | Path) -> str | None:
    """Where the task that a YAML file describes has its records; ``None`` where the file does not say.

    Raises:
        GradatimError: if the file is missing or cannot be read.
    """
    path = Path(path).expanduser()
    source = _beside(path, _read_yaml(path).get("source"))
    return source if isinstance(source, str) else None


def _beside(path: Path, source: Any) -> Any:
    """A source that lies beside its task's file, as a path from here; any other as it is."""
    if not isinstance(source, str):
        return source
    beside = path.parent / source
    local = beside.exists() or (source.endswith(".jsonl") and not beside.is_absolute())
    return str(beside) if local else source


def _make_verifier(verifier: str | Mapping[str, Any]) -> tuple[str, Verifier]:
    """The verifier's name and itself."""
    if isinstance(verifier, str):
        return verifier, make_verifier(verifier)
    options = dict(verifier)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise GradatimError("the verifier has no 'name'; write 'verifier: number' or 'verifier: {name: regex, ...}'")
    return name, make_verifier(name, options)


def _check_stop(stop: Sequence[str]) -> tuple[str, ...]:
    if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
        raise GradatimError(f'stop must be a list of the texts that end a solution, such as ["\\n\\n"], got {stop!r}')
    return tuple(stop)


def _value(record: Record, field: str) -> str:
    """A field's value as text.

    Raises:
        MalformedRecordError: if there is none, or neither text nor a number.
    """
    if field not in record:
        raise MalformedRecordError(f"has no field {field!r}; {suggestion(field, [str(name) for name in record])}")
    return text_or_number_field(record, field)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GradatimError(f"there is no task file {str(path)!r}; give the path of an existing one") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise GradatimError(f"the task {str(path)!r} cannot be read as YAML: {reason}; mend it") from error
    if not isinstance(content, dict):
        raise GradatimError(f"the task {str(path)!r} is empty or no mapping; begin it with 'source:' and 'template:'")
    return content


def _check_arguments(arguments: Mapping[str, Any], where: str) -> None:
    """Refuse unknown and missing arguments of :class:`OwnTask`, and values of a wrong kind.

    Raises:
        GradatimError: if there is one; says which.
    """
    parameters = inspect.signature(OwnTask).parameters
    for key, value in arguments.items():
        if key not in parameters:
            raise GradatimError(f"unknown key {key!r} in {where}; {suggestion(str(key), list(parameters))}")
        kind, words = _KINDS.get(key, (str, "text"))
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise GradatimError(f"the key {key!r} in {where} must be {words}, but is {value!r}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise GradatimError(f"the key {key!r} is missing in {where}; add it")


_KINDS: Mapping[str, tuple[Any, str]] = {
    "verifier": ((str, dict), "a verifier's name, or a mapping with its name"),
    "splits": (dict, "a mapping of splits to the source's own names"),
    "step_end": (list, "a list of texts"),
    "stop": (list, "a list of texts"),
    "seed": (int, "a whole number"),
    "validation_fraction": ((int, float), "a number"),
    "shuffle": (bool, "true or false"),
}
