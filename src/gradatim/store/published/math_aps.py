"""MATH-APS as rows: solutions with a tag after each step and a list of labels, as OpenR prepares all its data.

The trees behind these rows are read by :mod:`gradatim.store.published.omegaprm`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Self

from gradatim.errors import GradatimError
from gradatim.part import name_of, part
from gradatim.records import MalformedRecordError, Record, list_field, text_field
from gradatim.store.published.answers import final_answer
from gradatim.store.published.base import (
    LABEL,
    VALUE,
    LabelFormat,
    Question,
    TreeBuilder,
    holds_a_fraction,
    question_text,
    share,
    sign,
    step_text,
)
from gradatim.store.published.source_rows import labelled_beginnings, other_fields
from gradatim.store.published.step_tags import has_tag, split_at_tags
from gradatim.tree import Tree

_KNOWN = {"question", "process", "label"}
_TAGS = ("\n\n\n\n\n", "ки")


@part
class MathAps(LabelFormat):
    """MATH-APS and what OpenR prepares (Wang et al., 2024, arXiv:2410.09671; openreasoner/MATH-APS).

    One row is one solution or its beginning: ``process`` has a tag after each step, ``label`` a mark for each tag.

    Marks are "+" and "-", or numbers from 0 to 1. Where a source has a floating-point number among them, all its marks
    are read into ``node.scores["value"]``, else into ``"label"``. A last step that states the answer is finished, and
    its label is its reward.
    """

    tag: str | None = None
    """What stands after each step; `null` takes the one of OpenR's two tags (five line ends, or the tag of
    Math-Shepherd) that a row has as often as labels, and writes the first."""
    soft: bool | None = None
    """Whether marks are the numbers of `value`; `null` tells it by the source, and writes numbers where the rows were
    read so."""

    def matches(self, row: Record) -> bool:
        return isinstance(row.get("process"), str) and isinstance(row.get("label"), list)

    def informed(self, rows: Iterable[Record]) -> Self:
        return self if self.soft is not None else replace(self, soft=holds_a_fraction(rows, "label"))

    def question(self, row: Record) -> Question:
        return Question(text_field(row, "question").strip())

    def read(self, row: Record, builder: TreeBuilder) -> None:
        process = text_field(row, "process")
        marks = list_field(row, "label")
        tags = _TAGS if self.tag is None else (self.tag,)
        divided = [parts for tag in tags if len(parts := split_at_tags(process, tag)) > 1]
        if not divided:
            raise MalformedRecordError(f"has no step tag ({' or '.join(map(repr, tags))}) in its process")
        *steps, rest = next((parts for parts in divided if len(parts) == len(marks) + 1), divided[0])
        if rest.strip():
            raise MalformedRecordError("has text after its last step tag")
        if len(steps) != len(marks):
            raise MalformedRecordError(f"has {len(steps)} steps but {len(marks)} labels")
        texts = [step.strip() for step in steps]
        builder.add_solution(
            texts,
            [sign(mark) if isinstance(mark, str) else share(mark, "the label") for mark in marks],
            format=self,
            name=VALUE if self.soft else LABEL,
            finished=final_answer(texts[-1]) is not None,
            other_fields=other_fields(row, _KNOWN),
        )

    def rows(self, tree: Tree, value: str) -> Iterator[dict[str, Any]]:
        tag = self.tag or _TAGS[0]
        for solution in labelled_beginnings(tree, value, name_of(self)):
            steps = [step_text(node).strip() for node in solution.path]
            if any(has_tag(step, tag) for step in steps):
                raise GradatimError(f"problem {tree.problem.id!r} has the tag {tag!r} in a step; choose another tag")
            soft = self.soft if self.soft is not None else solution.as_read and value == VALUE
            yield {
                "question": question_text(tree).strip(),
                "process": " ".join(f"{step} {tag}" for step in steps),
                "label": [
                    label if soft else "+" if label > self.threshold else "-" for label in solution.known_labels()
                ],
                **solution.other_fields,
            }
