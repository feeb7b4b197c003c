"""RLHFlow's process reward data: a conversation in which the user writes steps and the assistant judges each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Self

from gradatim.part import name_of, part
from gradatim.records import MalformedRecordError, Record, list_field
from gradatim.store.published.base import LABEL, LabelFormat, Question, TreeBuilder, question_text, sign, step_text
from gradatim.store.published.question_end import FirstTurns, is_marked
from gradatim.store.published.source_rows import labelled_beginnings, other_fields
from gradatim.tree import Tree

_KNOWN = {"conversations", "question"}


@part
class RlhFlow(LabelFormat):
    """RLHFlow's conversations (Xiong et al., 2024; RLHFlow/Mistral-PRM-Data, RLHFlow/Deepseek-PRM-Data).

    One row is one whole solution: ``conversations`` of steps by the user and "+" or "-" by the assistant.

    The first turn is the question and the first step. The question ends before "Step 1:"; where steps are not numbered
    (the Deepseek data), it ends where the rows of the source that begin alike part, or with its request (see
    :class:`~gradatim.store.published.question_end.FirstTurns`), and a row that shows neither is malformed. What is
    written here without "Step 1:" has the question in a field ``question``. The last step is finished, and its label is
    its reward.
    """

    turns: FirstTurns = FirstTurns()
    """Where the rows of the source part; learned from the source."""

    def matches(self, row: Record) -> bool:
        return isinstance(row.get("conversations"), list)

    def informed(self, rows: Iterable[Record]) -> Self:
        return replace(self, turns=FirstTurns.of(_first_turns(rows)))

    def question(self, row: Record) -> Question:
        return Question(self._solution(row)[0])

    def read(self, row: Record, builder: TreeBuilder) -> None:
        _, steps, labels = self._solution(row)
        builder.add_solution(
            steps, labels, format=self, name=LABEL, finished=True, other_fields=other_fields(row, _KNOWN)
        )

    def rows(self, tree: Tree, value: str) -> Iterator[dict[str, Any]]:
        question = question_text(tree).strip()
        for solution in labelled_beginnings(tree, value, name_of(self)):
            steps = [step_text(node).strip() for node in solution.path]
            turns = []
            for text, label in zip([f"{question} {steps[0]}", *steps[1:]], solution.known_labels(), strict=True):
                mark = "+" if label > self.threshold else "-"
                turns += [{"role": "user", "content": text}, {"role": "assistant", "content": mark}]
            told = {} if is_marked(question, steps[0]) else {"question": question}
            yield {"conversations": turns, **told, **solution.other_fields}

    def _solution(self, row: Record) -> tuple[str, list[str], list[float]]:
        """A row's question, its steps and their labels."""
        steps, labels = _turns(row)
        told = row.get("question")
        question, first = self.turns.divide(steps[0], told if isinstance(told, str) else None)
        return question, [first, *(step.strip() for step in steps[1:])], labels


def _first_turns(rows: Iterable[Record]) -> Iterator[str]:
    for row in rows:
        try:
            yield _turns(row)[0][0]
        except MalformedRecordError:
            continue


def _turns(row: Record) -> tuple[list[str], list[float]]:
    """The steps, the question before the first of them, and their labels."""
    turns = [(turn.get("role"), turn.get("content")) for turn in list_field(row, "conversations") if _is_turn(turn)]
    steps = [content for role, content in turns if role == "user"]
    labels = [sign(content) for role, content in turns if role == "assistant"]
    if not steps or [role for role, _ in turns] != ["user", "assistant"] * len(steps):
        raise MalformedRecordError(f"has {len(steps)} steps and {len(labels)} labels that do not take turns")
    return steps, labels


def _is_turn(turn: object) -> bool:
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
        raise MalformedRecordError("has a turn of the conversation without text")
    return True
