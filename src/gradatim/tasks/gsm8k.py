"""GSM8K: grade-school word problems with worked solutions (Cobbe et al., 2021, arXiv:2110.14168).

A solution is a list of lines, each one step, the last of which is ``#### answer``. Calculations stand between double
angle brackets and are checked by :mod:`gradatim.tasks.calculator`. Any other data set of questions and worked
solutions in the same two fields (``question``, ``answer``) can be read as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from gradatim.records import MalformedRecordError, Record, text_field, text_or_number_field
from gradatim.tasks.base import Verdict
from gradatim.tasks.calculator import check_annotations
from gradatim.tasks.number_answers import extract_answer, verify_number
from gradatim.tasks.records import ProblemSource
from gradatim.tasks.steps import split_at
from gradatim.tasks.templates import Template
from gradatim.tasks.verifiers import ANSWER_ENDS
from gradatim.tree import Problem

__all__ = ["Gsm8k", "extract_answer", "TEMPLATE"]

TEMPLATE = "Question: {question}\nAnswer:\n"
"""The default prompt. It ends with a line break, so that prompt and reference solution join as they are and the first
step begins a line like every other."""


class Gsm8k:
    """Grade-school mathematics problems, read from the hub or from JSON lines.

    Args:
        source: a data set's id on the hub (or its copy in a local folder), loaded with ``datasets.load_dataset``; or
            a folder with ``train.jsonl`` and ``test.jsonl``; or one ``.jsonl`` file.
        config: the hub data set's configuration.
        seed: chooses which problems are held out.
        validation_fraction: share of the distinct questions of ``train`` that is held out as ``validation``, at least
            one. Which ones these are is the rank of a hash of the question, so a question that occurs twice is never
            on both sides. Of a single file, the same share again is cut off as ``test``; the three parts are disjoint.
        template: the prompt, with ``{question}`` in the question's place. Text before it may hold worked examples.
        on_bad_line: whether a malformed line or record is refused with its line number, or skipped with a warning
            that names the lines.

    Raises:
        GradatimError: if a local source does not exist or an argument is out of its range; :meth:`problems` raises it
            if the source cannot be read.
    """

    name = "gsm8k"
    step_end: tuple[str, ...] = ("\n",)

    def __init__(
        self,
        source: str = "openai/gsm8k",
        *,
        config: str = "main",
        seed: int = 0,
        validation_fraction: float = 0.05,
        template: str = TEMPLATE,
        on_bad_line: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        self._template = Template(template, ["question"])
        self.solution_end = replace(ANSWER_ENDS["number"], next_problem=self._template.next_problem)
        self.template = template
        self._source = ProblemSource(
            source,
            self._problem,
            key=lambda problem: str(problem.data["question"]),
            task=self.name,
            config=config,
            splits={"train": "train", "test": "test"},
            seed=seed,
            validation_fraction=validation_fraction,
            on_bad_line=on_bad_line,
        )

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``"train"``, ``"validation"`` or ``"test"``, in the source's order.

        A problem's ``answer`` is the reference answer's normal form; its ``data`` holds the ``question`` and the
        worked ``solution``, which continues the prompt as it is.

        Raises:
            GradatimError: if the split is unknown or empty, or the source is missing or malformed.
        """
        return self._source.problems(split, count)

    def split_steps(self, text: str) -> list[str]:
        """Divide a solution into its lines, line breaks included; joined again they are ``text``."""
        return split_at(text, self.step_end)

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Judge a solution by its final answer (see :func:`extract_answer`). Never raises.

        Where a model goes on to ask itself a next question under the template's heading, that part is left out.
        """
        return verify_number(problem.answer, self._template.first_solution(problem, text))

    def first_wrong_calculation(self, solution: str | Sequence[str]) -> int | None:
        """Index of the first step with a wrong calculation, or ``None`` where no annotation is wrong.

        A step is wrong if the two sides of an annotation differ, or if the sentence goes on with another number than
        the annotation's result, within the tolerance of :mod:`gradatim.tasks.calculator`. An error of thought with
        right arithmetic is not found. A whole text is divided by :meth:`split_steps` first. Never raises.
        """
        steps = self.split_steps(solution) if isinstance(solution, str) else solution
        for index, step in enumerate(steps):
            if any(annotation.finding.is_error for annotation in check_annotations(step)):
                return index
        return None

    def _problem(self, id: str, record: Record) -> Problem:
        question, solution = text_field(record, "question"), text_or_number_field(record, "answer")
        answer = extract_answer(solution)
        if answer is None:
            raise MalformedRecordError("has an answer without a final number")
        prompt = self._template.fill({"question": question})
        return Problem(id, prompt, answer, {"question": question, "solution": solution})
