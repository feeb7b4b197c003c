"""Questions with lettered options: ARC, MMLU, CommonsenseQA, GPQA, or records of one's own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from gradatim.records import MalformedRecordError, Record, text_field
from gradatim.tasks.base import Verdict
from gradatim.tasks.choice_answers import LETTERS, verify_choice
from gradatim.tasks.records import ProblemSource
from gradatim.tasks.steps import check_step_end, split_at
from gradatim.tasks.templates import Template
from gradatim.tasks.verifiers import ANSWER_ENDS
from gradatim.tree import Problem

TEMPLATE = "Question: {question}\n{choices}\nAnswer:\n"
"""The default prompt; ``{choices}`` are lines ``(A) text``."""

_GPQA_WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


class MultipleChoice:
    """Multiple-choice questions, read from the hub or from JSON lines.

    A record has one of these layouts:

    - ``question``, ``choices`` (or ``options``), a list of texts, and ``answer``: the right one's place counted from 0
      (MMLU), its letter (MMLU-Pro), or its text;
    - ``question``, ``choices`` with the lists ``text`` and ``label``, and ``answerKey``, one of the labels (ARC,
      CommonsenseQA);
    - ``Question``, ``Correct Answer`` and ``Incorrect Answer 1`` to ``3`` (GPQA), whose options are always shuffled.

    Args:
        source: a data set's id on the hub, a folder or a ``.jsonl`` file, as in
            :class:`gradatim.tasks.records.ProblemSource`.
        config: the hub data set's configuration, such as MMLU's ``"all"``.
        splits: the source's own name for each split that it has, such as MMLU's
            ``{"train": "auxiliary_train", "validation": "validation", "test": "test"}``.
        shuffle_choices: whether each question's options are put in an order of their own, so that no letter is right
            more often than others. The order depends on the seed and the question alone.
        seed: chooses the order of options, which problems are held out, and the order of shuffled ones.
        validation_fraction: share of ``train`` that is held out as ``validation``.
        shuffle: whether problems come in an order of their own, for sources that are sorted by subject.
        template: the prompt, with ``{question}`` and ``{choices}`` in their places.
        step_end: the texts that end a step.
        on_bad_line: whether a malformed line or record is refused with its line number or skipped with a warning.

    Raises:
        GradatimError: if a local source does not exist or an argument is out of its range.
    """

    name = "multiple_choice"

    def __init__(
        self,
        source: str = "allenai/ai2_arc",
        *,
        config: str | None = None,
        splits: Mapping[str, str] | None = None,
        shuffle_choices: bool = False,
        seed: int = 0,
        validation_fraction: float = 0.05,
        shuffle: bool = False,
        template: str = TEMPLATE,
        step_end: Sequence[str] = ("\n",),
        on_bad_line: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        self.template = template
        self.step_end = check_step_end(step_end)
        self._template = Template(template, ["question", "choices"])
        self.solution_end = replace(ANSWER_ENDS["choice"], next_problem=self._template.next_problem)
        self._shuffle_choices = shuffle_choices
        self._seed = seed
        self._source = ProblemSource(
            source,
            self._problem,
            key=lambda problem: str(problem.data["question"]),
            task=self.name,
            config=config or ("ARC-Challenge" if source == "allenai/ai2_arc" else None),
            splits=splits,
            seed=seed,
            validation_fraction=validation_fraction,
            shuffle=shuffle,
            on_bad_line=on_bad_line,
        )

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``"train"``, ``"validation"`` or ``"test"``, always the same.

        A problem's ``answer`` is the right option's letter. Its ``data`` holds the ``choices``, and as ``question`` the
        question with its lettered options, which is what a model in conversation is asked.

        Raises:
            GradatimError: if the split is unknown or empty, or the source is missing or malformed.
        """
        return self._source.problems(split, count)

    def split_steps(self, text: str) -> list[str]:
        """Divide a solution after each of ``step_end``; joined again the steps are ``text``."""
        return split_at(text, self.step_end)

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Judge a solution by the option that it names (see :func:`gradatim.tasks.choice_answers.extract_choice`).

        Where a model goes on to ask itself a next question under the template's heading, that part is left out. Never
        raises.
        """
        choices = problem.data.get("choices", ())
        return verify_choice(problem.answer, self._template.first_solution(problem, text), choices)

    def _problem(self, id: str, record: Record) -> Problem:
        question, choices, right = _read(record)
        if not 2 <= len(choices) <= len(LETTERS):
            raise MalformedRecordError(f"has {len(choices)} choices, not 2 to {len(LETTERS)}")
        if self._shuffle_choices or "Correct Answer" in record:
            order = list(range(len(choices)))
            random.Random(f"{self._seed}:{question}").shuffle(order)
            choices, right = [choices[place] for place in order], order.index(right)
        lettered = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        prompt = self._template.fill({"question": question, "choices": lettered})
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
