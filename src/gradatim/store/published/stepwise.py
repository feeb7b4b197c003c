"""Stepwise supervision: the row format of TRL's process reward data sets, and of most others since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Self

from gradatim.part import name_of, part
from gradatim.records import MalformedRecordError, Record, list_field, text_field
from gradatim.store.published.answers import final_answer
from gradatim.store.published.base import (
    LABEL,
    STEP_END,
    VALUE,
    LabelFormat,
    Question,
    TreeBuilder,
    holds_a_fraction,
    share,
)
from gradatim.store.published.source_rows import labelled_beginnings, other_fields
from gradatim.supervision.rows import stepwise_row
from gradatim.tree import Tree

_KNOWN = {"prompt", "completions", "labels"}


@part
class StepwiseSupervision(LabelFormat):
    """Stepwise supervision, TRL's layout (trl-lib/math_shepherd, trl-lib/prm800k and many others).

    One row is one solution or its beginning: ``prompt``, ``completions``, and ``labels``, one for each completion.

    Labels are read into ``node.scores["label"]``; where a source has a floating-point number among them, they are
    shares, and all labels of the source are read into ``"value"``. A last step that states the answer is finished, and
    so is one without a line end where the other steps (or, of a single step, the prompt) keep theirs. Its label is its
    reward.

    Rows written here keep the boundaries of steps in the text of ``completions``, as all rows of supervision do.
    """

    soft: bool | None = None
    """Whether labels are the numbers of `value`; `null` tells it by the source, and writes numbers where the rows were
    read so, else truth values."""

    def matches(self, row: Record) -> bool:
        return {"prompt", "completions", "labels"} <= row.keys()

    def informed(self, rows: Iterable[Record]) -> Self:
        return self if self.soft is not None else replace(self, soft=holds_a_fraction(rows, "labels"))

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
        ends_otherwise = not steps[-1].endswith(STEP_END) and all(
            text.endswith(STEP_END) for text in steps[:-1] or [text_field(row, "prompt")]
        )
        finished = ends_otherwise or final_answer(steps[-1]) is not None
        texts = [step.removesuffix(STEP_END) for step in steps[:-1]]
        last = steps[-1] if finished else steps[-1].removesuffix(STEP_END)
        builder.add_solution(
            [*texts, last],
            labels,
            format=self,
            name=VALUE if self.soft else LABEL,
            finished=finished,
            other_fields=other_fields(row, _KNOWN),
        )

    def rows(self, tree: Tree, value: str) -> Iterator[dict[str, Any]]:
        for solution in labelled_beginnings(tree, value, name_of(self)):
            soft = self.soft if self.soft is not None else solution.as_read and value == VALUE
            row = stepwise_row(solution.path, solution.known_labels(), threshold=None if soft else self.threshold)
            yield {**row, **solution.other_fields}
