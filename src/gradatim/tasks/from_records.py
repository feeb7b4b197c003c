"""What tasks share whose problems are records of a file, a folder or the hub: their options, and reading them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gradatim.errors import GradatimError
from gradatim.part import PartOf, options
from gradatim.records import Record
from gradatim.tasks.base import Task, Verdict
from gradatim.tasks.problem_source import ProblemSource
from gradatim.tasks.templates import Template
from gradatim.tasks.verifiers import Verifier, make_verifier
from gradatim.text.boundaries.base import Boundary
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.text.solution_end import SolutionEnd
from gradatim.tree import Problem

StepBoundary = Annotated[Boundary, PartOf("text/boundaries")]


@options
class RecordTask(Task):
    """A task that reads its problems; see :class:`gradatim.tasks.problem_source.ProblemSource` for how.

    A subclass says how a record becomes a problem (:meth:`read`), and by :attr:`fields_shown` and :attr:`answers` what
    its prompt shows and how its answers look and are judged.
    """

    fields_shown: ClassVar[tuple[str, ...]] = ("question",)
    """The fields that the template has places for."""
    answers: ClassVar[str] = "number"
    """The verifier's name (see :func:`gradatim.tasks.verifiers.make_verifier`)."""

    source: str | None
    """A data set's id on the hub, a folder with a `.jsonl` file for each split, or one `.jsonl` file."""
    config: str | None = None
    """The hub data set's configuration, if it has several."""
    splits: dict[str, str] | None = None
    """The source's own name for each split that it has, such as `{train: auxiliary_train, test: test}`; `null` is
    `train` and `test`. What it has none of is held out of `train`."""
    seed: int = 0
    """Chooses which problems are held out, and every order that is drawn."""
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of the training problems that is held out as validation (and as test where the source has none)."""
    shuffle: bool = False
    """Whether problems come in an order of their own, for sources that are sorted by subject or difficulty."""
    on_bad_line: Literal["refuse", "skip"] = "refuse"
    """Whether a malformed record is refused with its line number, or skipped with a warning."""
    template: str | None
    """The prompt, with the fields in braces in their places."""
    boundary: StepBoundary = Delimiter()
    """What ends a step."""

    def __post_init__(self) -> None:
        _ = self.prompt_template  # a template without its places is refused now

    @cached_property
    def prompt_template(self) -> Template:
        """The template, with its places found.

        Raises:
            GradatimError: if a field has no place or several.
        """
        return Template(self.template or "", self.fields_shown)

    @cached_property
    def solution_end(self) -> SolutionEnd:
        return replace(self.judge.solution_end, next_problem=self.prompt_template.next_problem)

    @cached_property
    def judge(self) -> Verifier:
        """The verifier."""
        return make_verifier(self.answers)

    def solution(self, problem: Problem, text: str) -> str:
        """A text up to where the model goes on to ask itself a next problem under the template's heading."""
        return self.prompt_template.first_solution(problem, text)

    def answer(self, problem: Problem, text: str) -> str | None:
        return self.judge.answer(self.solution(problem, text))

    def check(self, problem: Problem, text: str) -> Verdict:
        return self.judge.check(problem.answer, self.solution(problem, text))

    @property
    def files(self) -> tuple[Path, ...]:
        return () if self.source is None else (Path(self.source).expanduser(),)

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``"train"``, ``"validation"`` or ``"test"``, always the same.

        Raises:
            GradatimError: if the split is unknown or empty, or the source is missing or malformed.
        """
        return self._source.problems(split, count)

    @abstractmethod
    def read(self, id: str, record: Record) -> Problem:
        """The problem of a record, with its text as ``data["question"]``.

        Raises:
            MalformedRecordError: if it is none; the message goes on after the record's place.
        """

    def held_out_by(self, problem: Problem) -> str:
        """The text by which a problem is held out: equal texts are never on two sides."""
        return str(problem.data["question"])

    def ask(self, text: str) -> Problem:
        if len(self.prompt_template.fields) != 1:
            raise GradatimError(f"a problem of the task {self.name!r} has several parts; put it into the task's source")
        prompt = self.prompt_template.fill({self.prompt_template.fields[0]: text})
        return Problem("question", prompt, None, {"question": text})

    @cached_property
    def _source(self) -> ProblemSource:
        assert self.source is not None, "a task that needs no source overrides this"
        return ProblemSource(self, self.source, self.config)
