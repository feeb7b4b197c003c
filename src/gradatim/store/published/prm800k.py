"""PRM800K: steps of solutions to MATH problems, each with alternatives, rated by people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from gradatim.part import part
from gradatim.records import MalformedRecordError, Record, list_field, text_field
from gradatim.store.published.base import (
    LABEL,
    LabelFormat,
    Question,
    TreeBuilder,
    optional_text,
    question_text,
    step_text,
)
from gradatim.store.published.source_rows import other_fields
from gradatim.supervision.values import has_value
from gradatim.tree import Node, Tree

RATING = "rating"
_METADATA = "prm800k"
_ANSWER_HEADING = re.compile(r"(?:\A|\n)# Answer\s*\n")
_NEUTRAL = {"good": 1.0, "bad": 0.0, "drop": None}
_REST = ("labeler", "timestamp", "generation", "is_quality_control_question", "is_initial_screening_question")


@dataclass(frozen=True, slots=True)
class _Completion:
    """One proposal for a step; ``rating`` is -1, 0, 1 or unknown, ``fields`` are the row's but for the text."""

    text: str
    rating: int | None
    human: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _RatedStep:
    """The proposals for one step, and the place of the one that the row says was continued."""

    completions: list[_Completion]
    chosen: int | None
    fields: Mapping[str, Any]


@part
class Prm800k(LabelFormat):
    """PRM800K, steps rated by people (Lightman et al., 2023, arXiv:2305.20050; openai/prm800k).

    One row is one labelled solution: all proposals for a step are siblings, and the chosen one is continued.

    The label is 1 for a good step and for one that a person wrote, 0 for a bad one; ``node.scores["rating"]`` keeps
    the rating itself (-1, 0, 1). A step that nobody rated has neither. Where nothing was chosen and steps follow, they
    follow the only proposal, or the one that ``pre_generated_steps`` names; a row that shows neither is malformed. A
    last step that states the answer is finished; its reward is its rating, and 1 for the step that ended the labelling
    with ``finish_reason`` "solution". Who labelled, and what else a row tells, is kept in the tree's metadata.

    A tree whose labels are those that were read is written as the rows that it was read from, every other one as as
    many rows as its paths need, in which shared steps are repeated.
    """

    neutral: Literal["good", "bad", "drop"] = "good"
    """What a step is that is not wrong but leads nowhere (rating 0): `good` as in the paper, `bad`, or `drop` to leave
    it without a label."""

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
        choices = _choices(steps, row["question"].get("pre_generated_steps"))
        solved = label.get("finish_reason") == "solution"
        node = builder.tree.root
        notes = []
        for step, choice, goes_on in choices:
            children = [
                self._add(builder, node, each, goes_on=goes_on and place == choice, solved=solved and place == choice)
                for place, each in enumerate(step.completions)
            ]
            notes.append(_step_note(step, children))
            node = node if choice is None else children[choice]
        kept = {**other_fields(row, set()), "label": {**other_fields(label, {"steps"}), "steps": notes}}
        builder.tree.metadata.setdefault(_METADATA, {"neutral": self.neutral, "rows": []})["rows"].append(kept)

    def _add(self, builder: TreeBuilder, parent: Node, completion: _Completion, *, goes_on: bool, solved: bool) -> Node:
        """Add one proposal; ``solved`` says that the chosen path ended in a right answer."""
        finished = not goes_on and (solved or _ANSWER_HEADING.search(completion.text) is not None)
        node = builder.add(parent, completion.text, finished=finished)
        if completion.rating is not None:
            builder.judge(node, RATING, completion.rating)
        label = _label(completion.rating, completion.human, self.neutral)
        if label is not None:
            builder.judge(node, LABEL, label)
        if finished:
            builder.grade(node, 1.0 if solved else {-1: 0.0, 1: 1.0}.get(completion.rating or 0))
        return node

    def rows(self, tree: Tree, value: str) -> Iterator[dict[str, Any]]:
        notes = tree.metadata.get(_METADATA)
        if notes is not None and value == LABEL and _still_hold(notes, tree):
            for row in notes["rows"]:
                steps = [_with_texts(step, tree) for step in row["label"]["steps"]]
                yield {**row, "label": {**row["label"], "steps": steps}}
            return
        for last in tree.nodes:
            if not last.children or not all(child.is_leaf for child in last.children):
                continue
            path = last.path()
            choices = [*path[1:], _conclusion(last.children)]
            steps = [
                _step_row(node.children, choice, value, self.threshold)
                for node, choice in zip(path, choices, strict=True)
            ]
            row = _blank_row(tree)
            yield {**row, "label": {**row["label"], "steps": steps, "finish_reason": _finish_reason(steps[-1])}}


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
    return _RatedStep(completions, chosen, other_fields(step, set()))


def _completion(value: object, number: int, *, human: bool = False) -> _Completion:
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(text, str):
        raise MalformedRecordError(f"has a completion without text in step {number}")
    rating = value.get("rating")
    if rating not in (None, -1, 0, 1):
        raise MalformedRecordError(f"has the rating {rating!r} in step {number}, which is not -1, 0, 1 or null")
    return _Completion(text, None if rating is None else int(rating), human, other_fields(value, {"text"}))


def _choices(steps: Sequence[_RatedStep], pre_generated: object) -> Iterable[tuple[_RatedStep, int | None, bool]]:
    """Each step with the place of the proposal that goes on or concludes, and whether further steps follow it.

    Raises:
        MalformedRecordError: if steps follow and nothing says what they follow.
    """
    last = max((place for place, step in enumerate(steps) if step.completions), default=-1)
    found: list[tuple[_RatedStep, int | None, bool]] = []
    for place, step in enumerate(steps):
        choice = step.chosen
        if choice is None and place < last:
            choice = _continued(step, pre_generated, place)
        found.append((step, choice, place < last))
    return found


def _continued(step: _RatedStep, pre_generated: object, place: int) -> int:
    """The place of the proposal that the next steps follow, where a row marks none."""
    count = len(step.completions)
    if count == 1:
        return 0
    texts = [completion.text for completion in step.completions]
    if isinstance(pre_generated, list) and place < len(pre_generated) and texts.count(pre_generated[place]) == 1:
        return texts.index(pre_generated[place])
    raise MalformedRecordError(f"goes on after step {place + 1}, where none of {count} completions is chosen")


def _label(rating: int | None, human: bool, neutral: str) -> float | None:
    if rating is None:
        return 1.0 if human else None
    return _NEUTRAL[neutral] if rating == 0 else float(rating > 0)


def _step_note(step: _RatedStep, children: Sequence[Node]) -> dict[str, Any]:
    """A step's fields as they were read, with the ids of nodes in place of texts."""
    notes = [{"node": node.id, **each.fields} for each, node in zip(step.completions, children, strict=True)]
    note = dict(step.fields)
    if step.completions and step.completions[-1].human:
        note["human_completion"] = notes.pop()
    if notes:
        note["completions"] = notes
    return note


def _with_texts(note: Mapping[str, Any], tree: Tree) -> dict[str, Any]:
    """A step as it was read, of its note."""
    step = dict(note)
    for name in ("completions", "human_completion"):
        value = note.get(name)
        if isinstance(value, list):
            step[name] = [_completion_row(each, tree) for each in value]
        elif value is not None:
            step[name] = _completion_row(value, tree)
    return step


def _completion_row(note: Mapping[str, Any], tree: Tree) -> dict[str, Any]:
    fields = {name: value for name, value in note.items() if name != "node"}
    return {"text": step_text(tree.nodes[note["node"]]), **fields}


def _still_hold(notes: Record, tree: Tree) -> bool:
    """Whether the tree has the steps and labels of its rows and no others."""
    labels: dict[int, list[float]] = {}
    seen: set[int] = set()
    for row in notes["rows"]:
        for step in row["label"]["steps"]:
            human = step.get("human_completion")
            for each in [*(step.get("completions") or []), *([] if human is None else [human])]:
                seen.add(each["node"])
                rating = each.get("rating")
                label = _label(None if rating is None else int(rating), each is human, notes["neutral"])
                if label is not None:
                    labels.setdefault(each["node"], []).append(label)
    scored = {node.id: node.scores[LABEL] for node in tree.nodes if LABEL in node.scores}
    return len(seen) == len(tree) - 1 and scored == {place: fmean(values) for place, values in labels.items()}


def _blank_row(tree: Tree) -> dict[str, Any]:
    """A row that was not read from anywhere, before its steps are written."""
    return {
        **dict.fromkeys(_REST),
        "question": {"problem": question_text(tree), "ground_truth_answer": tree.problem.answer},
        "label": {"steps": [], "total_time": None, "finish_reason": None},
    }


def _conclusion(last: Sequence[Node]) -> Node | None:
    """The step with which a row ends: the first right solution."""
    return next((node for node in last if node.finished and node.correct), None)


def _step_row(siblings: Sequence[Node], choice: Node | None, value: str, threshold: float) -> dict[str, Any]:
    return {
        "completions": [
            {"text": step_text(node), "rating": _rating(node, value, threshold), "flagged": False} for node in siblings
        ],
        "human_completion": None,
        "chosen_completion": None if choice is None else siblings.index(choice),
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
