"""RLHFlow's process reward data: a conversation in which the user writes steps and the assistant judges each.

Xiong et al., *An Implementation of Generative PRM*, 2024; the data sets RLHFlow/Mistral-PRM-Data and
RLHFlow/Deepseek-PRM-Data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gradatim.records import MalformedRecordError, Record, list_field
from gradatim.store.published.base import LABEL, Question, TreeBuilder, question_text, sign, step_text
from gradatim.store.published.tagged import numbered, split_question
from gradatim.supervision.labels import step_labels
from gradatim.supervision.rows import labelled_paths
from gradatim.tree import Tree


@dataclass(frozen=True, slots=True)
class RlhFlow:
    """One row is one whole solution: ``conversations`` of steps by the user and "+" or "-" by the assistant.

    The first turn is the question and the first step; the question ends before "Step 1:", else behind its last
    question mark. The last step is finished, and its label is its reward.
    """

    name = "rlhflow"
    score = LABEL

    def matches(self, row: Record) -> bool:
        return isinstance(row.get("conversations"), list)

    def question(self, row: Record) -> Question:
        return Question(_solution(row)[0])

    def read(self, row: Record, builder: TreeBuilder) -> None:
        _, steps, labels = _solution(row)
        builder.add_path(steps, labels, name=LABEL, finished=True)

    def rows(self, tree: Tree, value: str, threshold: float) -> Iterator[dict[str, Any]]:
        for path in labelled_paths(step_labels(tree, value=value)):
            first, *steps = numbered([step_text(node) for node in path])
            turns = []
            for node, text in zip(path, [f"{question_text(tree).strip()} {first}", *steps], strict=True):
                mark = "+" if node.scores[value] > threshold else "-"
                turns += [{"role": "user", "content": text}, {"role": "assistant", "content": mark}]
            yield {"conversations": turns}


def _solution(row: Record) -> tuple[str, list[str], list[float]]:
    """A row's question, its steps and their labels."""
    turns = [(turn.get("role"), turn.get("content")) for turn in list_field(row, "conversations") if _is_turn(turn)]
    steps = [content for role, content in turns if role == "user"]
    labels = [sign(content) for role, content in turns if role == "assistant"]
    if not steps or [role for role, _ in turns] != ["user", "assistant"] * len(steps):
        raise MalformedRecordError(f"has {len(steps)} steps and {len(labels)} labels that do not take turns")
    question, first = split_question(steps[0])
    return question, [first, *(step.strip() for step in steps[1:])], labels


def _is_turn(turn: object) -> bool:
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
        raise MalformedRecordError("has a turn of the conversation without text")
    return True
