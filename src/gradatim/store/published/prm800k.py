"""PRM800K: steps of solutions to MATH problems, each with alternatives, rated by people.

Lightman et al., *Let's Verify Step by Step*, 2023, arXiv:2305.20050; the files ``phase*_*.jsonl`` of openai/prm800k.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gradatim.records import MalformedRecordError, Record, list_field, text_field
from gradatim.store.published.base import LABEL, Question, TreeBuilder, optional_text, question_text, step_text
from gradatim.supervision.labels import has_value
from gradatim.tree import Node, Tree

RATING = "rating"
_METADATA = "prm800k"
_ANSWER_HEADING = re.compile(r"(?:\A|\n)# Answer\s*\n")
_NEUTRAL = {"good": 1.0, "bad": 0.0, "drop": None}
_REST = ("labeler", "timestamp", "generation", "is_quality_control_question", "is_initial_screening_question")


@dataclass(frozen=True, slots=True)
class _Completion:
    """One proposal for a step; ``rating`` is -1, 0, 1 or unknown."""

    text: str
    rating: int | None
    flagged: bool
    human: bool = False


@dataclass(frozen=True, slots=True)
class _RatedStep:
    """The proposals for one step, and the place of the one that was continued."""

    completions: list[_Completion]
    chosen: int | None


@dataclass(frozen=True, slots=True)
class Prm800k:
    """One row is one labelled solution: all proposals for a step are siblings, and the chosen one is continued.

    The label is 1 for a good step and for one that a person wrote, 0 for a bad one; ``node.scores["rating"]`` keeps
    the rating itself (-1, 0, 1). A step that nobody rated has neither. A trajectory ends where nothing was chosen. A
    last step that states the answer is finished; its reward is its rating, and 1 for the step that ended the labelling
    with ``finish_reason`` "solution". Who labelled, and what else a row tells, is kept in the tree's metadata and
    written again if the tree was read from one row.

    A tree of any shape can be written: as many rows as its paths need, in which shared steps are repeated.

    Attributes:
        neutral: what a step is that is not wrong but leads nowhere (rating 0): ``"good"`` as in the paper, ``"bad"``,
            or ``"drop"`` to leave it without a label.
    """

    neutral: Literal["good", "bad", "drop"] = "good"

    name = "prm800k"
    score = LABEL

    def matches(self, row: Record) -> bool:
        return isinstance(row.get("question"), dict) and isinstance(row.get("label"), dict)

    def question(self, row: Record) -> Question:
        fields = row.get("question")
        if not isinstance(fields, dict):
            raise MalformedRecordError("has no 'question' with a 'problem'")
        return Question(text_field(fields, "problem"), optional_text(fields, "ground_truth_answer"))

    def read(self, row: Record, builder: TreeBuilder) -> None:
        label = row.get("label")
        if not isinstance(label, dict):
            raise MalformedRecordError("has no 'label' with 'steps'")
        steps = [_rated_step(step, number) for number, step in enumerate(list_field(label, "steps"), 1)]
        solved = label.get("finish_reason") == "solution"
        notes = builder.tree.metadata.setdefault(_METADATA, {"rows": [], "human": [], "flagged": [], "chosen": []})
        notes["rows"].append(_rest_of(row))
        node = builder.tree.root
        for place, step in enumerate(steps, 1):
            goes_on = step.chosen is not None and place < len(steps) and bool(steps[place].completions)
            children = [
                self._add(builder, node, completion, goes_on=goes_on and chosen, solved=solved and chosen)
                for completion, chosen in _with_choice(step)
            ]
            if step.chosen is None:
                break
            node = children[step.chosen]
            if not goes_on:
                _note(notes["chosen"], node)
                break

    def _add(self, builder: TreeBuilder, parent: Node, completion: _Completion, *, goes_on: bool, solved: bool) -> Node:
        """Add one proposal; ``solved`` says that the chosen path ended in a right answer."""
        finished = not goes_on and (solved or _ANSWER_HEADING.search(completion.text) is not None)
        node = builder.add(parent, completion.text, finished=finished)
        label = 1.0 if completion.human else None
        if completion.rating is not None:
            builder.judge(node, RATING, completion.rating)
            label = _NEUTRAL[self.neutral] if completion.rating == 0 else float(completion.rating > 0)
        if label is not None:
            builder.judge(node, LABEL, label)
        if finished:
            builder.grade(node, 1.0 if solved else {-1: 0.0, 1: 1.0}.get(completion.rating or 0))
        notes = builder.tree.metadata[_METADATA]
        if completion.human:
            _note(notes["human"], node)
        if completion.flagged:
            _note(notes["flagged"], node)
        return node

    def rows(self, tree: Tree, value: str, threshold: float) -> Iterator[dict[str, Any]]:
        notes = tree.metadata.get(_METADATA, {})
        stored = notes.get("rows", [])
        spines = [node for node in tree.nodes if node.children and all(child.is_leaf for child in node.children)]
        for last in spines:
            row = _blank_row(tree)
            if len(stored) == len(spines) == 1:
                row = {**row, **stored[0], "label": {**row["label"], **stored[0]["label"]}}
            path = last.path()
            choices = [*path[1:], _conclusion(last.children, notes.get("chosen", ()))]
            steps = [
                _step_row(node.children, choice, notes, value, threshold)
                for node, choice in zip(path, choices, strict=True)
            ]
            reason = row["label"]["finish_reason"] or _finish_reason(steps[-1])
            row["label"] = {**row["label"], "steps": steps, "finish_reason": reason}
            yield row


def _rated_step(step: object, number: int) -> _RatedStep:
    if not isinstance(step, dict):
        raise MalformedRecordError(f"has a step {number} that is not an object")
    given = step.get("completions") or []
    if not isinstance(given, list):
        raise MalformedRecordError(f"has completions of step {number} that are not a list")
    completions = [_completion(each, number) for each in given]
    chosen = step.get("chosen_completion")
    if chosen is not None and (type(chosen) is not int or not 0 <= chosen < len(completions)):
        raise MalformedRecordError(f"chooses completion {chosen!r} of the {len(completions)} of step {number}")
    human = step.get("human_completion")
    if human is not None:
        completions.append(_completion({"text": human} if isinstance(human, str) else human, number, human=True))
        chosen = len(completions) - 1 if chosen is None else chosen
    return _RatedStep(completions, chosen)


def _completion(value: object, number: int, *, human: bool = False) -> _Completion:
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(text, str):
        raise MalformedRecordError(f"has a completion without text in step {number}")
    rating = value.get("rating")
    if rating not in (None, -1, 0, 1):
        raise MalformedRecordError(f"has the rating {rating!r} in step {number}, which is not -1, 0, 1 or null")
    return _Completion(text, None if rating is None else int(rating), value.get("flagged") is True, human)


def _with_choice(step: _RatedStep) -> list[tuple[_Completion, bool]]:
    return [(completion, place == step.chosen) for place, completion in enumerate(step.completions)]


def _note(ids: list[int], node: Node) -> None:
    if node.id not in ids:
        ids.append(node.id)


def _rest_of(row: Record) -> dict[str, Any]:
    """A row without its steps."""
    return {**row, "label": {name: value for name, value in row["label"].items() if name != "steps"}}


def _blank_row(tree: Tree) -> dict[str, Any]:
    """A row that was not read from anywhere, before its steps are written."""
    return {
        **dict.fromkeys(_REST),
        "question": {"problem": question_text(tree), "ground_truth_answer": tree.problem.answer},
        "label": {"steps": [], "total_time": None, "finish_reason": None},
    }


def _conclusion(last: Sequence[Node], chosen: Sequence[int]) -> Node | None:
    """The step with which a row ends: the one that was chosen, else the first right solution."""
    found = next((node for node in last if node.id in chosen), None)
    right = (node for node in last if node.finished and node.reward is not None and node.reward > 0.5)
    return found or next(right, None)


def _step_row(
    siblings: Sequence[Node], choice: Node | None, notes: Record, value: str, threshold: float
) -> dict[str, Any]:
    human = next((node for node in siblings if node.id in notes.get("human", ())), None)
    proposals = [node for node in siblings if node is not human]
    flagged = notes.get("flagged", ())
    return {
        "completions": [
            {
                "text": step_text(node),
                "rating": _rating(node, value, threshold),
                "flagged": node.id in flagged,
            }
            for node in proposals
        ],
        "human_completion": None
        if human is None
        else {"text": step_text(human), "rating": None, "source": "human", "flagged": human.id in flagged},
        "chosen_completion": proposals.index(choice) if choice in proposals else None,
    }


def _rating(node: Node, value: str, threshold: float) -> int | None:
    """A step's rating: the person's own where the person's labels are written, else -1 or 1 by its label."""
    own = node.scores.get(RATING)
    if value == LABEL and own in (-1, 0, 1):
        return int(own)
    if not has_value(node, value):
        return None
    return 1 if node.scores[value] > threshold else -1


def _finish_reason(last: Record) -> str:
    if last["chosen_completion"] is not None:
        return "solution"
    return "found_error" if any(each["rating"] == -1 for each in last["completions"]) else "give_up"
