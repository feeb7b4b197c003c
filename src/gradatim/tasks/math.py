r"""MATH: competition problems with worked solutions in LaTeX (Hendrycks et al., 2021, arXiv:2103.03874).

A solution ends with its answer in ``\boxed{}``. Answers are compared by value (see
:mod:`gradatim.tasks.math_equality`), so any other data set of questions with such answers can be read as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.records import MalformedRecordError, Record, text_field, text_or_number_field
from gradatim.suggestions import suggestion
from gradatim.tasks.from_records import RecordTask, StepBoundary
from gradatim.tasks.math_answers import boxed_answer
from gradatim.tasks.problem_source import ProblemSource
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import Problem

TRAIN_SOURCE = "DigitalLearningGmbH/MATH-lighteval"
"""The hub's copy of MATH: 7,500 problems to train on."""

TEST_SOURCE = "HuggingFaceH4/MATH-500"
"""500 of MATH's test problems, drawn by Lightman et al. (2023, arXiv:2305.20050); what models are compared on."""

TEMPLATE = "Problem: {problem}\nSolution:\n"
"""The default prompt. It ends with a line break, so that prompt and reference solution join as they are."""

_FIELDS_OF_SUBJECT = ("subject", "type")


@part
class Math(RecordTask):
    r"""Competition mathematics with boxed answers (MATH: Hendrycks et al., 2021, arXiv:2103.03874).

    A record has the fields ``problem`` and ``solution`` or ``answer`` (or both); where there is no ``answer``, it is
    what the solution's last ``\boxed{}`` holds. ``level`` (``"Level 3"`` or ``3``) and ``subject`` (or ``type``) may be
    there to choose by.
    """

    fields_shown: ClassVar[tuple[str, ...]] = ("problem",)
    answers: ClassVar[str] = "math"

    source: str | None = None
    """A data set's id on the hub, a folder or a `.jsonl` file; `null` is MATH itself, with MATH-500 as its test."""
    levels: tuple[Annotated[int, Field(ge=1, le=5)], ...] | None = None
    """Only problems of these levels, from 1 (easiest) to 5; `null` for all."""
    subjects: tuple[str, ...] | None = None
    """Only problems of these subjects, such as `Number Theory` or `number_theory`; `null` for all."""
    shuffle: bool = True
    """Whether problems come in an order of their own; MATH is sorted by subject."""
    template: str = TEMPLATE
    """The prompt, with `{problem}` in the problem's place; text before it may hold worked examples."""
    boundary: StepBoundary = Delimiter(at=("\n\n",))
    """What ends a step: by default a paragraph's end, since lines would cut displayed formulas into pieces."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source is None and self.splits is not None:
            raise GradatimError("splits are those of a source, and MATH has its own; name a source or leave them out")

    @cached_property
    def _source(self) -> ProblemSource:
        return ProblemSource(self, self.source or TRAIN_SOURCE, self.config)

    @cached_property
    def _test_source(self) -> ProblemSource:
        return self._source if self.source else ProblemSource(self, TEST_SOURCE, self.config)

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``"train"``, ``"validation"`` or ``"test"``, always the same.

        A problem's ``data`` holds the ``question``, the worked ``solution`` (where there is one, continuing the prompt
        as it is), its ``level`` and its ``subject``.

        Raises:
            GradatimError: if the split is unknown or empty, the source is missing or malformed, or no problem has the
                chosen levels and subjects.
        """
        source = self._test_source if split == "test" else self._source
        if not self.levels and not self.subjects:
            return source.problems(split, count)
        source.problems(split, count)  # for its checks
        everything = source.problems(split)
        self._check_subjects(everything)
        chosen = [problem for problem in everything if self._is_chosen(problem)]
        if not chosen:
            raise GradatimError(
                f"no {split} problem of {source.source!r} has the chosen levels and subjects; choose more"
            )
        return chosen[:count]

    def read(self, id: str, record: Record) -> Problem:
        question = text_field(record, "problem")
        solution = text_field(record, "solution") if "answer" not in record or "solution" in record else None
        answer = text_or_number_field(record, "answer") if "answer" in record else boxed_answer(solution or "")
        if answer is None or not answer.strip():
            raise MalformedRecordError("has neither an answer nor a solution with one in \\boxed{}")
        subject = next((record[field] for field in _FIELDS_OF_SUBJECT if isinstance(record.get(field), str)), None)
        data = {"question": question, "solution": solution, "level": _level(record.get("level")), "subject": subject}
        known = {key: value for key, value in data.items() if value is not None}
        return Problem(id, self.prompt_template.fill({"problem": question}), answer.strip(), known)

    def _is_chosen(self, problem: Problem) -> bool:
        return (not self.levels or problem.data.get("level") in self.levels) and (
            not self.subjects or _plain(problem.data.get("subject", "")) in map(_plain, self.subjects)
        )

    def _check_subjects(self, problems: Sequence[Problem]) -> None:
        known = {_plain(subject): subject for problem in problems if (subject := problem.data.get("subject"))}
        for subject in self.subjects or ():
            if _plain(subject) not in known:
                raise GradatimError(f"there is no subject {subject!r}; {suggestion(subject, sorted(known.values()))}")


def _level(value: object) -> int | None:
    """A level as a number; ``None`` where there is none (MATH has a few ``"Level ?"``)."""
    digits = str(value).removeprefix("Level ")
    return int(digits) if digits.isascii() and digits.isdigit() else None


def _plain(subject: str) -> str:
    return subject.casefold().replace("_", " ").replace(" and ", " & ")
