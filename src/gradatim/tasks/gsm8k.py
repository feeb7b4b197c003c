"""GSM8K: grade-school word problems with worked solutions (Cobbe et al., 2021, arXiv:2110.14168).

A solution is a list of lines, each one step, the last of which is ``#### answer``. Calculations stand between double
angle brackets and are checked by :mod:`gradatim.tasks.calculator`. Any other data set of questions and worked
solutions in the same two fields (``question``, ``answer``) can be read as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from gradatim.part import part
from gradatim.records import MalformedRecordError, Record, text_field, text_or_number_field
from gradatim.tasks.calculator import check_annotations
from gradatim.tasks.from_records import RecordTask
from gradatim.tasks.number_answers import extract_answer
from gradatim.tree import Problem

__all__ = ["Gsm8k", "extract_answer", "TEMPLATE"]

TEMPLATE = "Question: {question}\nAnswer:\n"
"""The default prompt. It ends with a line break, so that prompt and reference solution join as they are and the first
step begins a line like every other."""


@part
class Gsm8k(RecordTask):
    """Grade-school mathematics with a number as the answer (GSM8K: Cobbe et al., 2021, arXiv:2110.14168).

    A problem's ``answer`` is the reference answer's normal form; its ``data`` holds the ``question`` and the worked
    ``solution``, which continues the prompt as it is.
    """

    source: str = "openai/gsm8k"
    config: str = "main"
    """The hub data set's configuration."""
    template: str = TEMPLATE
    """The prompt, with `{question}` in the question's place; text before it may hold worked examples."""

    def first_wrong_calculation(self, solution: str | Sequence[str]) -> int | None:
        """Index of the first step with a wrong calculation, or ``None`` where no annotation is wrong.

        A step is wrong if the two sides of an annotation differ, or if the sentence goes on with another number than
        the annotation's result, within the tolerance of :mod:`gradatim.tasks.calculator`. An error of thought with
        right arithmetic is not found. A whole text is divided by :attr:`boundary` first. Never raises.
        """
        steps = self.boundary.split(solution) if isinstance(solution, str) else solution
        for index, step in enumerate(steps):
            if any(annotation.finding.is_error for annotation in check_annotations(step)):
                return index
        return None

    def read(self, id: str, record: Record) -> Problem:
        question, solution = text_field(record, "question"), text_or_number_field(record, "answer")
        answer = extract_answer(solution)
        if answer is None:
            raise MalformedRecordError("has an answer without a final number")
        prompt = self.prompt_template.fill({"question": question})
        return Problem(id, prompt, answer, {"question": question, "solution": solution})
