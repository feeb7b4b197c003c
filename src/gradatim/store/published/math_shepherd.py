"""Math-Shepherd: sampled solutions to GSM8K and MATH problems, each step labelled by whether rollouts got right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Self

from gradatim.errors import GradatimError
from gradatim.part import name_of, part
from gradatim.records import MalformedRecordError, Record, text_field
from gradatim.store.published.base import LABEL, LabelFormat, Question, TreeBuilder, question_text, sign, step_text
from gradatim.store.published.question_end import FirstTurns, has_first_step, is_marked, is_whole_question
from gradatim.store.published.source_rows import LabelledSolution, labelled_solutions, other_fields
from gradatim.store.published.step_tags import has_tag, split_at_tags
from gradatim.tree import Tree

_OTHER_TEXT = "has a label that is not its input with a mark in place of each tag"
_KNOWN = {"input", "label", "question"}
_SECOND_STEP = re.compile(r"step 2:", re.IGNORECASE)


@part
class MathShepherd(LabelFormat):
    """Math-Shepherd, steps labelled by rollouts (Wang et al., 2023, arXiv:2312.08935; peiyi9979/Math-Shepherd).

    One row is one whole solution: ``input`` has a tag after each step, and ``label`` "+" or "-" in its place.

    The solutions of a question are paths of one tree; a step that they share and that was judged more than once has
    the mean of its labels. The last step is finished, and its label is its reward. A text after the last tag is a last
    step without a label. Letters of the tag within a word, and a tag that stands in ``label`` too, are text.

    The question ends before "Step 1:"; a tag that stands before that is a fault of the data set, and its label is
    passed over. Where no step is numbered, it ends where the rows of the source that begin alike part, or with its
    request (see :class:`~gradatim.store.published.question_end.FirstTurns`), and a row that shows neither is
    malformed. What is written here without "Step 1:" has the question in a field ``question``.
    """

    tag: str = "ки"
    """What stands after each step of `input`."""
    turns: FirstTurns = FirstTurns()
    """Where the rows of the source part; learned from the source."""

    def matches(self, row: Record) -> bool:
        return isinstance(row.get("input"), str) and isinstance(row.get("label"), str)

    def informed(self, rows: Iterable[Record]) -> Self:
        return replace(self, turns=FirstTurns.of(self._heads(rows)))

    def _heads(self, rows: Iterable[Record]) -> Iterator[str]:
        """The questions with their first steps."""
        for row in rows:
            try:
                parts, _, _ = self._parts(row)
            except MalformedRecordError:
                continue
            yield self._head(parts)[0]

    def question(self, row: Record) -> Question:
        task = row.get("task")
        return Question(self._solution(row)[0], data={"task": task} if isinstance(task, str) else {})

    def read(self, row: Record, builder: TreeBuilder) -> None:
        _, steps, labels = self._solution(row)
        known = (
            _KNOWN if row.get("task") is not None else {*_KNOWN, "task"}
        )  # it is written as null where it is unknown
        builder.add_solution(
            steps, labels, format=self, name=LABEL, finished=True, other_fields=other_fields(row, known)
        )

    def rows(self, tree: Tree, value: str) -> Iterator[dict[str, Any]]:
        question = question_text(tree).strip()
        for solution in labelled_solutions(tree, value, name_of(self)):
            steps = [step_text(node).strip() for node in solution.path]
            if any(has_tag(text, self.tag) for text in (question, *steps)):
                raise GradatimError(
                    f"problem {tree.problem.id!r} has the tag {self.tag!r} in its text; choose another tag"
                )
            yield {
                "input": f"{question} " + self._joined(steps, solution, [self.tag] * len(steps)),
                "label": f"{question} " + self._joined(steps, solution, _marks(solution, self.threshold)),
                "task": None if solution.as_read else tree.problem.data.get("task"),
                **({} if is_marked(question, steps[0]) else {"question": question}),
                **solution.other_fields,
            }

    @staticmethod
    def _joined(steps: list[str], solution: LabelledSolution, marks: list[str]) -> str:
        ends = [f" {mark}" if label is not None else "" for mark, label in zip(marks, solution.labels, strict=True)]
        return "\n".join(f"{step}{end}" for step, end in zip(steps, ends, strict=True))

    def _parts(self, row: Record) -> tuple[list[str], list[float | None], str]:
        """The texts before the tags, their labels, and the text after the last one."""
        *parts, rest = split_at_tags(text_field(row, "input"), self.tag)
        return _aligned(text_field(row, "label"), parts, rest, self.tag)

    def _head(self, parts: list[str]) -> tuple[str, int]:
        """The question with what stands before the first tag that ends a step, and the place of that tag."""
        numbered = (
            place
            for place, part in enumerate(parts)
            if has_first_step(part) and (place + 1 == len(parts) or _SECOND_STEP.match(parts[place + 1].strip()))
        )
        first = 0 if has_first_step(parts[0]) else next(numbered, 0)
        return "".join(parts[: first + 1]), first

    def _solution(self, row: Record) -> tuple[str, list[str], list[float | None]]:
        """A row's question, its steps and their labels."""
        parts, labels, rest = self._parts(row)
        told = row.get("question")
        head, first = (parts[0], 0) if isinstance(told, str) else self._head(parts)
        if isinstance(told, str) or has_first_step(head) or not is_whole_question(head):
            question, step = self.turns.divide(head, told if isinstance(told, str) else None)
            steps, marks = [step, *parts[first + 1 :]], labels[first:]
        else:
            question, steps, marks = head.strip(), parts[1:], labels[1:]
        if rest.strip():
            steps, marks = [*steps, rest], [*marks, None]
        if not steps:
            raise MalformedRecordError("has a question but no steps")
        if not any(mark is not None for mark in marks):
            raise MalformedRecordError("has no step with a label")
        return question, [step.strip() for step in steps], marks


def _marks(solution: LabelledSolution, threshold: float) -> list[str]:
    return ["" if label is None else "+" if label > threshold else "-" for label in solution.labels]


def _aligned(text: str, parts: list[str], rest: str, tag: str) -> tuple[list[str], list[float | None], str]:
    """Texts and labels by the marks that stand in ``text`` where the tags behind ``parts`` stood.

    A tag that stands in ``text`` too belongs to the step.
    """
    if not parts:
        raise MalformedRecordError(f"has no step tag {tag!r} in its input")
    texts, labels = [""], list[float | None]()
    place = 0
    for each in parts:
        mark = place + len(each)
        if mark >= len(text):
            raise MalformedRecordError(f"has {len(parts)} step tags in its input but only {len(labels)} labels")
        if text[place:mark] != each:  # a plus sign of another text would be taken for a label
            raise MalformedRecordError(_OTHER_TEXT)
        texts[-1] += each
        if text.startswith(tag, mark):
            texts[-1] += tag
            place = mark + len(tag)
            continue
        labels.append(sign(text[mark]))
        texts.append("")
        place = mark + 1
    if text[place:].strip() != rest.strip():
        raise MalformedRecordError(_OTHER_TEXT)
    if not labels:
        raise MalformedRecordError("has no label")
    return texts[:-1], labels, texts[-1] + rest
