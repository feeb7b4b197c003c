r"""MATH: competition problems with worked solutions in LaTeX (Hendrycks et al., 2021, arXiv:2103.03874).

A solution ends with its answer in ``\boxed{}``. Answers are compared by value (see
:mod:`gradatim.tasks.math_equality`), so any other data set of questions with such answers can be read as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from gradatim.errors import GradatimError
from gradatim.records import MalformedRecordError, Record, text_field, text_or_number_field
from gradatim.suggestions import suggestion
from gradatim.tasks.base import Verdict
from gradatim.tasks.math_answers import boxed_answer, verify_math
from gradatim.tasks.records import ProblemSource
from gradatim.tasks.steps import check_step_end, split_at
from gradatim.tasks.templates import Template
from gradatim.tasks.verifiers import ANSWER_ENDS
from gradatim.tree import Problem

TRAIN_SOURCE = "DigitalLearningGmbH/MATH-lighteval"
"""The hub's copy of MATH: 7,500 problems to train on."""

TEST_SOURCE = "HuggingFaceH4/MATH-500"
"""500 of MATH's test problems, drawn by Lightman et al. (2023, arXiv:2305.20050); what models are compared on."""

TEMPLATE = "Problem: {problem}\nSolution:\n"
"""The default prompt. It ends with a line break, so that prompt and reference solution join as they are."""

_FIELDS_OF_SUBJECT = ("subject", "type")


class Math:
    r"""Competition mathematics problems, read from the hub or from JSON lines.

    A record has the fields ``problem`` and ``solution`` or ``answer`` (or both); where there is no ``answer``, it is
    what the solution's last ``\boxed{}`` holds. ``level`` (``"Level 3"`` or ``3``) and ``subject`` (or ``type``) may be
    there to choose by.

    Args:
        source: a data set's id on the hub, a folder or a ``.jsonl`` file, as in
            :class:`gradatim.tasks.records.ProblemSource`. By default the problems to train on are those of
            :data:`TRAIN_SOURCE`, the test problems those of :data:`TEST_SOURCE`.
        config: the hub data set's configuration.
        levels: only problems of these levels (1 is easiest, 5 hardest).
        subjects: only problems of these subjects, such as ``"Number Theory"`` or ``"number_theory"``.
        seed: chooses which problems are held out, and the order of shuffled ones.
        validation_fraction: share of ``train`` that is held out as ``validation``.
        shuffle: whether problems come in an order of their own; MATH is sorted by subject.
        template: the prompt, with ``{problem}`` in the problem's place. Text before it may hold worked examples.
        step_end: the texts that end a step. A step is a paragraph unless this says otherwise: lines would cut displayed
            formulas into pieces.
        on_bad_line: whether a malformed line or record is refused with its line number or skipped with a warning.

    Raises:
        GradatimError: if a local source does not exist or an argument is out of its range.
    """

    name = "math"

    def __init__(
        self,
        source: str | None = None,
        *,
        config: str | None = None,
        levels: Sequence[int] | None = None,
        subjects: Sequence[str] | None = None,
        seed: int = 0,
        validation_fraction: float = 0.05,
        shuffle: bool = True,
        template: str = TEMPLATE,
        step_end: Sequence[str] = ("\n\n",),
        on_bad_line: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        if unknown := set(levels or ()) - {1, 2, 3, 4, 5}:
            raise GradatimError(f"levels are 1 to 5, got {', '.join(map(str, sorted(unknown)))}")
        self.template = template
        self.step_end = check_step_end(step_end)
        self._template = Template(template, ["problem"])
        self.solution_end = replace(ANSWER_ENDS["math"], next_problem=self._template.next_problem)
        self._levels = set(levels or ())
        self._subjects = {_plain(subject): subject for subject in subjects or ()}

        def open_source(name: str) -> ProblemSource:
            return ProblemSource(
                name,
                self._problem,
                key=lambda problem: str(problem.data["question"]),
                task=self.name,
                config=config,
                seed=seed,
                validation_fraction=validation_fraction,
                shuffle=shuffle,
                on_bad_line=on_bad_line,
            )

        self._train = open_source(source or TRAIN_SOURCE)
        self._test = self._train if source else open_source(TEST_SOURCE)

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``"train"``, ``"validation"`` or ``"test"``, always the same.

        A problem's ``data`` holds the ``question``, the worked ``solution`` (where there is one, continuing the prompt
        as it is), its ``level`` and its ``subject``.

        Raises:
            GradatimError: if the split is unknown or empty, the source is missing or malformed, or no problem has the
                chosen levels and subjects.
        """
        source = self._test if split == "test" else self._train
        if not self._levels and not self._subjects:
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

    def split_steps(self, text: str) -> list[str]:
        """Divide a solution after each of ``step_end``; joined again the steps are ``text``."""
        return split_at(text, self.step_end)

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Judge a solution by its final answer (see :func:`gradatim.tasks.math_answers.verify_math`). Never raises.

        Where a model goes on to ask itself a next problem under the template's heading, that part is left out.
        """
        return verify_math(problem.answer, self._template.first_solution(problem, text))

    def _problem(self, id: str, record: Record) -> Problem:
        question = text_field(record, "problem")
        solution = text_field(record, "solution") if "answer" not in record or "solution" in record else None
        answer = text_or_number_field(record, "answer") if "answer" in record else boxed_answer(solution or "")
        if answer is None or not answer.strip():
            raise MalformedRecordError("has neither an answer nor a solution with one in \\boxed{}")
        subject = next((record[field] for field in _FIELDS_OF_SUBJECT if isinstance(record.get(field), str)), None)
        data = {"question": question, "solution": solution, "level": _level(record.get("level")), "subject": subject}
        known = {key: value for key, value in data.items() if value is not None}
        return Problem(id, self._template.fill({"problem": question}), answer.strip(), known)

    def _is_chosen(self, problem: Problem) -> bool:
        return (not self._levels or problem.data.get("level") in self._levels) and (
            not self._subjects or _plain(problem.data.get("subject", "")) in self._subjects
        )

    def _check_subjects(self, problems: Sequence[Problem]) -> None:
        known = {_plain(subject): subject for problem in problems if (subject := problem.data.get("subject"))}
        for plain, subject in self._subjects.items():
            if plain not in known:
                raise GradatimError(f"there is no subject {subject!r}; {suggestion(subject, sorted(known.values()))}")


def _level(value: object) -> int | None:
    """A level as a number; ``None`` where there is none (MATH has a few ``"Level ?"``)."""
    digits = str(value).removeprefix("Level ")
    return int(digits) if digits.isascii() and digits.isdigit() else None


def _plain(subject: str) -> str:
    return subject.casefold().replace("_", " ").replace(" and ", " & ")
