"""Math-Shepherd: sampled solutions to GSM8K and MATH problems, each step labelled by whether rollouts got right.

Wang et al., *Math-Shepherd*, 2023, arXiv:2312.08935; the data set peiyi9979/Math-Shepherd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gradatim.errors import GradatimError
from gradatim.records import MalformedRecordError, Record, text_field
from gradatim.store.published.base import LABEL, Question, TreeBuilder, question_text, sign, step_text
from gradatim.store.published.tagged import has_first_step, numbered, split_question
from gradatim.supervision.labels import step_labels
from gradatim.supervision.rows import labelled_paths
from gradatim.tree import Tree

_OTHER_TEXT = "has a label that is not its input with a mark in place of each tag"


@dataclass(frozen=True, slots=True)
class MathShepherd:
    """One row is one whole solution: ``input`` has a tag after each step, and ``label`` "+" or "-" in its place.

    The solutions of a question are paths of one tree; a step that they share and that was judged more than once has
    the mean of its labels. The last step is finished, and its label is its reward. A text after the last tag is a last
    step without a label.

    The question ends before "Step 1:"; a tag that stands before that is a fault of the data set, and its label is
    passed over. Where no step is numbered, the question ends with its question mark, or at the first tag.

    Attributes:
        tag: what stands after each step of ``input``.
    """

    tag: str = "ки"

    name = "math-shepherd"
    score = LABEL

    def matches(self, row: Record) -> bool:
        return isinstance(row.get("input"), str) and isinstance(row.get("label"), str)

    def question(self, row: Record) -> Question:
        task = row.get("task")
        return Question(self._solution(row)[0], data={"task": task} if isinstance(task, str) else {})

    def read(self, row: Record, builder: TreeBuilder) -> None:
        _, steps, labels = self._solution(row)
        builder.add_path(steps, labels, name=LABEL, finished=True)

    def rows(self, tree: Tree, value: str, threshold: float) -> Iterator[dict[str, Any]]:
        for path in labelled_paths(step_labels(tree, value=value)):
            steps = numbered([step_text(node) for node in path])
            question = question_text(tree).strip()
            if any(self.tag in text for text in (question, *steps)):
                raise GradatimError(
                    f"problem {tree.problem.id!r} has the tag {self.tag!r} in its text; choose another tag",
                    options=("tag",),
                )
            marks = ["+" if node.scores[value] > threshold else "-" for node in path]
            yield {
                "input": f"{question} " + "\n".join(f"{step} {self.tag}" for step in steps),
                "label": f"{question} " + "\n".join(f"{step} {mark}" for step, mark in zip(steps, marks, strict=True)),
                "task": tree.problem.data.get("task"),
            }

    def _solution(self, row: Record) -> tuple[str, list[str], list[float | None]]:
        """A row's question, its steps and their labels."""
        *parts, rest = text_field(row, "input").split(self.tag)
        if not parts:
            raise MalformedRecordError(f"has no step tag {self.tag!r} in its input")
        labels = _labels(text_field(row, "label"), parts, rest)
        first = next((place for place, part in enumerate(parts) if has_first_step(part)), 0)
        head = self.tag.join(parts[: first + 1]).replace(self.tag, "")
        if has_first_step(head) or "?" in head.rstrip("? \n"):
            question, step = split_question(head)
            steps, marks = [step, *parts[first + 1 :]], labels[first:]
        else:
            question, steps, marks = head.strip(), parts[1:], labels[1:]
        if rest.strip():
            steps, marks = [*steps, rest], [*marks, None]
        if not steps:
            raise MalformedRecordError("has a question but no steps")
        return question, [step.strip() for step in steps], marks


def _labels(text: str, parts: list[str], rest: str) -> list[float | None]:
    """The marks that stand in ``text`` where the tags behind ``parts`` stood; ``rest`` is what follows the last."""
    labels: list[float | None] = []
    place = 0
    for part in parts:
        mark = place + len(part)
        if mark >= len(text):
            raise MalformedRecordError(f"has {len(parts)} step tags in its input but only {len(labels)} labels")
        if text[place:mark] != part:  # a plus sign of another text would be taken for a label
            raise MalformedRecordError(_OTHER_TEXT)
        labels.append(sign(text[mark]))
        place = mark + 1
    if text[place:].strip() != rest.strip():
        raise MalformedRecordError(_OTHER_TEXT)
    return labels
