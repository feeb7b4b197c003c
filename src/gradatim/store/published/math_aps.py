"""MATH-APS as rows: solutions with a tag after each step and a list of labels, as OpenR prepares all its data.

Wang et al., *OpenR*, 2024, arXiv:2410.09671; the data set openreasoner/MATH-APS and the output of OpenR's
``preprocess``. The trees behind these rows are read by :mod:`gradatim.store.published.omega_prm`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gradatim.errors import GradatimError
from gradatim.records import MalformedRecordError, Record, list_field, text_field
from gradatim.store.published.answers import final_answer
from gradatim.store.published.base import LABEL, Question, TreeBuilder, question_text, share, sign, step_text
from gradatim.supervision.labels import step_labels
from gradatim.supervision.rows import labelled_paths
from gradatim.tree import Tree

_TAGS = ("\n\n\n\n\n", "ки")


@dataclass(frozen=True, slots=True)
class MathAps:
    """One row is one solution or its beginning: ``process`` has a tag after each step, ``label`` a mark for each tag.

    Marks are "+" and "-", or numbers from 0 to 1. A last step that states the answer is finished, and its label is its
    reward.

    Attributes:
        tag: what stands after each step; ``None`` takes whichever of OpenR's two tags a row has (five line ends, or
            the tag of Math-Shepherd) and writes the first.
    """

    tag: str | None = None

    name = "math-aps"
    score = LABEL

    def matches(self, row: Record) -> bool:
        return isinstance(row.get("process"), str) and isinstance(row.get("label"), list)

    def question(self, row: Record) -> Question:
        return Question(text_field(row, "question").strip())

    def read(self, row: Record, builder: TreeBuilder) -> None:
        process = text_field(row, "process")
        marks = list_field(row, "label")
        tags = _TAGS if self.tag is None else (self.tag,)
        tag = next((tag for tag in tags if tag in process), None)
        if tag is None:
            raise MalformedRecordError(f"has no step tag ({' or '.join(map(repr, tags))}) in its process")
        *steps, rest = process.split(tag)
        if rest.strip():
            raise MalformedRecordError("has text after its last step tag")
        if len(steps) != len(marks):
            raise MalformedRecordError(f"has {len(steps)} steps but {len(marks)} labels")
        texts = [step.strip() for step in steps]
        labels = [sign(mark) if isinstance(mark, str) else share(mark, "the label") for mark in marks]
        builder.add_path(texts, labels, name=LABEL, finished=final_answer(texts[-1]) is not None)

    def rows(self, tree: Tree, value: str, threshold: float) -> Iterator[dict[str, Any]]:
        tag = self.tag or _TAGS[0]
        for path in labelled_paths(step_labels(tree, value=value)):
            steps = [step_text(node).strip() for node in path]
            if any(tag in step for step in steps):
                raise GradatimError(
                    f"problem {tree.problem.id!r} has the tag {tag!r} in a step; choose another tag", options=("tag",)
                )
            yield {
                "question": question_text(tree).strip(),
                "process": " ".join(f"{step} {tag}" for step in steps),
                "label": ["+" if node.scores[value] > threshold else "-" for node in path],
            }
