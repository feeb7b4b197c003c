"""Stepwise supervision: the row format of TRL's process reward data sets, and of most others since."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gradatim.records import MalformedRecordError, Record, list_field, text_field
from gradatim.store.published.answers import final_answer
from gradatim.store.published.base import LABEL, STEP_END, VALUE, Question, TreeBuilder, share
from gradatim.supervision.labels import step_labels
from gradatim.supervision.rows import stepwise_rows
from gradatim.tree import Tree


@dataclass(frozen=True, slots=True)
class StepwiseSupervision:
    """One row is one solution or its beginning: ``prompt``, ``completions``, and ``labels``, one for each completion.

    Labels that are truth values or whole numbers are read into ``node.scores["label"]``, those of a row with
    floating-point numbers into ``"value"``. A last step that states the answer is finished, and so is one without a
    line end where the other steps (or, of a single step, the prompt) keep theirs. Its label is its reward.

    Rows written here keep the boundaries of steps in the text of ``completions``, as all rows of supervision do.

    Attributes:
        soft: write labels as the numbers that they are.
    """

    soft: bool = False

    name = "stepwise"
    score = LABEL

    def matches(self, row: Record) -> bool:
        return {"prompt", "completions", "labels"} <= row.keys()

    def question(self, row: Record) -> Question:
        return Question(text_field(row, "prompt").removesuffix(STEP_END))

    def read(self, row: Record, builder: TreeBuilder) -> None:
        steps, marks = list_field(row, "completions"), list_field(row, "labels")
        if len(steps) != len(marks):
            raise MalformedRecordError(f"has {len(steps)} completions but {len(marks)} labels")
        if not steps:
            raise MalformedRecordError("has no completions")
        if not all(isinstance(step, str) for step in steps):
            raise MalformedRecordError("has a completion that is not text")
        labels = [share(mark, "the label") for mark in marks]
        soft = any(isinstance(mark, float) for mark in marks)
        ends_otherwise = not steps[-1].endswith(STEP_END) and all(
            text.endswith(STEP_END) for text in steps[:-1] or [text_field(row, "prompt")]
        )
        finished = ends_otherwise or final_answer(steps[-1]) is not None
        texts = [step.removesuffix(STEP_END) for step in steps[:-1]]
        last = steps[-1] if finished else steps[-1].removesuffix(STEP_END)
        builder.add_path([*texts, last], labels, name=VALUE if soft else LABEL, finished=finished)

    def rows(self, tree: Tree, value: str, threshold: float) -> Iterator[dict[str, Any]]:
        labels = step_labels(tree, value=value)
        for row in stepwise_rows(labels, threshold=None if self.soft else threshold):
            yield dict(row)
