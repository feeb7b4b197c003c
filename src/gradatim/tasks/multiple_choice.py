"""Questions with lettered options: ARC, MMLU, CommonsenseQA, GPQA, or records of one's own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from gradatim.part import part
from gradatim.records import MalformedRecordError, Record, text_field
from gradatim.tasks.base import Verdict
from gradatim.tasks.choice_answers import LETTERS, extract_choice, verify_choice
from gradatim.tasks.from_records import RecordTask
from gradatim.tasks.problem_source import ProblemSource
from gradatim.tree import Problem

TEMPLATE = "Question: {question}\n{choices}\nAnswer:\n"
"""The default prompt; ``{choices}`` are lines ``(A) text``."""

_GPQA_WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


@part
class MultipleChoice(RecordTask):
    """Questions with lettered options (ARC, MMLU and their like).

    A record has one of these layouts:

    - ``question``, ``choices`` (or ``options``), a list of texts, and ``answer``: the right one's place counted from 0
      (MMLU), its letter (MMLU-Pro), or its text;
    - ``question``, ``choices`` with the lists ``text`` and ``label``, and ``answerKey``, one of the labels (ARC,
      CommonsenseQA);
    - ``Question``, ``Correct Answer`` and ``Incorrect Answer 1`` to ``3`` (GPQA), whose options are always shuffled.

    A problem's ``answer`` is the right option's letter. Its ``data`` holds the ``choices``, and as ``question`` the
    question with its lettered options, which is what a model in conversation is asked.
    """

    fields_shown: ClassVar[tuple[str, ...]] = ("question", "choices")
    answers: ClassVar[str] = "choice"

    source: str = "allenai/ai2_arc"
    """A data set's id on the hub, a folder or a `.jsonl` file."""
    shuffle_choices: bool = False
    """Whether a question's options are put in an order of their own, so that no letter is right more often."""
    template: str = TEMPLATE
    """The prompt, with `{question}` and `{choices}` in their places."""

    @cached_property
    def _source(self) -> ProblemSource:
        arc = "ARC-Challenge" if self.source == "allenai/ai2_arc" else None
        return ProblemSource(self, self.source, self.config or arc)

    def ask(self, text: str) -> Problem:
        """A question with its options, as a person types it."""
        return Problem("question", text)

    def answer(self, problem: Problem, text: str) -> str | None:
        """The letter of the option that a solution names."""
        return extract_choice(self.solution(problem, text), problem.data.get("choices", ()))

    def check(self, problem: Problem, text: str) -> Verdict:
        return verify_choice(problem.answer, self.solution(problem, text), problem.data.get("choices", ()))

    def read(self, id: str, record: Record) -> Problem:
        question, choices, right = _read(record)
        if not 2 <= len(choices) <= len(LETTERS):
            raise MalformedRecordError(f"has {len(choices)} choices, not 2 to {len(LETTERS)}")
        if self.shuffle_choices or "Correct Answer" in record:
            order = list(range(len(choices)))
            random.Random(f"{self.seed}:{question}").shuffle(order)
            choices, right = [choices[place] for place in order], order.index(right)
        lettered = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        prompt = self.prompt_template.fill({"question": question, "choices": lettered})
        return Problem(id, prompt, LETTERS[right], {"question": f"{question}\n{lettered}", "choices": choices})


def _read(record: Record) -> tuple[str, list[str], int]:
    """The question, the choices and the right one's place of a record in one of the layouts.

    Raises:
        MalformedRecordError: if it is in none of them.
    """
    if "Correct Answer" in record:
        choices = [text_field(record, field).strip() for field in ("Correct Answer", *_GPQA_WRONG)]
        return text_field(record, "Question").strip(), choices, 0
    question = text_field(record, "question")
    given = record.get("choices", record.get("options"))
    if isinstance(given, Mapping):
        choices, labels = _texts(given.get("text")), given.get("label")
        if not isinstance(labels, list) or len(labels) != len(choices):
            raise MalformedRecordError("has choices without a label for each text")
        return question, choices, _place(record.get("answerKey"), [str(label) for label in labels], choices)
    choices = _texts(given)
    answer = record.get("answer", record.get("answerKey"))
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(choices):
            raise MalformedRecordError(f"has the answer {answer}, but its choices count from 0 to {len(choices) - 1}")
        return question, choices, answer
    return question, choices, _place(answer, list(LETTERS[: len(choices)]), choices)


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str | int | float) for text in value):
        raise MalformedRecordError("has no list of texts in the field 'choices'")
    return [str(text) for text in value]


def _place(answer: Any, labels: Sequence[str], choices: Sequence[str]) -> int:
    for names in (labels, choices):
        if answer in names:
            return list(names).index(answer)
    raise MalformedRecordError(f"has the answer {answer!r}, which is none of its choices; give its letter or place")
