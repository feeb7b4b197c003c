"""OmegaPRM's search trees with Monte-Carlo values, in the three layouts in which OpenR wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

from gradatim.part import part
from gradatim.records import MalformedRecordError, Record, list_field, text_field
from gradatim.store.published.answers import final_answer
from gradatim.store.published.base import (
    VALUE,
    PublishedFormat,
    Question,
    TreeBuilder,
    optional_text,
    question_text,
    share,
    step_text,
)
from gradatim.store.published.source_rows import other_fields
from gradatim.supervision.values import has_value
from gradatim.tree import EndReason, Node, Step, Tree

_METADATA = "omegaprm"
_KNOWN = {"question", "q", "final_answer", "reasoning_steps", "states"}
_Outline = tuple[int, str, float | None]
"""One step: its parent's place in the list of steps (-1 for the root), its text, its value."""


@part
class OmegaPrm(PublishedFormat):
    """OmegaPRM's search trees as OpenR wrote them (Luo et al., 2024, arXiv:2406.06592; OpenR's data/omegaPRM_v2).

    One row is one tree: the value of a step is the share of rollouts from it that were right.

    Read are nested steps (``reasoning_steps`` as an object of ``text``, ``mc_value`` and ``children``), lists of
    beginnings of solutions (``reasoning_steps`` of ``solution_prefix`` and ``mc_value``), and the older ``q`` with
    ``states`` of ``state`` and ``mcs``. Of beginnings, each becomes a step below the longest other one that it
    continues; they keep their text as it is, since they may end inside a line, and a beginning that stands more than
    once has the mean of its values. The rollouts of ``states`` are left out: nothing says whether they were right.

    A tree whose values are those that were read is written as the rows that it was read from (beginnings as
    ``solution_prefix``), every other one as nested steps.

    A leaf that states an answer is finished; its reward is its value if that is 0 or 1. How many rollouts a value
    rests on was never published, so there are no counts.
    """

    score: ClassVar[str] = VALUE

    def matches(self, row: Record) -> bool:
        return isinstance(row.get("reasoning_steps"), dict | list) or isinstance(row.get("states"), list)

    def question(self, row: Record) -> Question:
        field = "q" if "states" in row else "question"
        return Question(text_field(row, field).strip(), optional_text(row, "final_answer"))

    def read(self, row: Record, builder: TreeBuilder) -> None:
        steps = row.get("reasoning_steps")
        question = self.question(row).text
        if isinstance(steps, dict):
            layout, root_value, outline = "nested", _value(steps, "mc_value"), _nested_outline(steps)
        else:
            layout = "prefixes"
            if isinstance(steps, list):
                values = _prefixes(steps, "solution_prefix", "mc_value", question)
            else:
                values = _prefixes(list_field(row, "states"), "state", "mcs", "")
            root_value = values.pop("", None)
            outline = _outline(values)
        nodes = _build(builder, root_value, outline, exact=layout == "prefixes")
        kept = [[parent, node.id, value] for node, (parent, _, value) in zip(nodes, outline, strict=True)]
        note = {"layout": layout, "value": root_value, "steps": kept, "other_fields": other_fields(row, _KNOWN)}
        builder.tree.metadata.setdefault(_METADATA, []).append(note)

    def rows(self, tree: Tree, value: str) -> Iterator[dict[str, Any]]:
        notes = tree.metadata.get(_METADATA, [])
        if notes and value == VALUE and _still_hold(notes, tree):
            for note in notes:
                yield {**_row(tree, _steps_as_read(note, tree)), **note["other_fields"]}
            return
        written: dict[int, dict[str, Any]] = {}
        for node in reversed(tree.nodes):  # children before parents, without recursion
            written[node.id] = _nested(
                node,
                node.scores[value] if has_value(node, value) else None,
                [written.pop(child.id) for child in node.children],
            )
        if any(has_value(node, value) for node in tree.nodes[1:]):
            yield _row(tree, written[tree.root.id])


def _row(tree: Tree, steps: dict[str, Any] | list[dict[str, Any]]) -> dict[str, Any]:
    return {"question": question_text(tree), "final_answer": tree.problem.answer, "reasoning_steps": steps}


def _nested(node: Node, value: float | None, children: list[dict[str, Any]]) -> dict[str, Any]:
    text = question_text(node.tree) if node.is_root else step_text(node)
    return {"text": text, "mc_value": value, "children": children}


def _steps_as_read(note: Record, tree: Tree) -> dict[str, Any] | list[dict[str, Any]]:
    """The steps of one row that a tree was read from."""
    if note["layout"] == "prefixes":
        question = question_text(tree)
        root = [] if note["value"] is None else [{"solution_prefix": question, "mc_value": note["value"]}]
        return root + [
            {"solution_prefix": f"{question}\n\n{tree.nodes[place].text}", "mc_value": value}
            for _, place, value in note["steps"]
        ]
    root_step = _nested(tree.root, note["value"], [])
    steps: list[dict[str, Any]] = []
    for parent, place, value in note["steps"]:
        steps.append(_nested(tree.nodes[place], value, []))
        (root_step if parent < 0 else steps[parent])["children"].append(steps[-1])
    return root_step


def _still_hold(notes: Sequence[Record], tree: Tree) -> bool:
    """Whether the tree has the steps and values of its rows and no others."""
    values: dict[int, list[float]] = {}
    seen = {0}
    for note in notes:
        for place, value in [(0, note["value"]), *((place, value) for _, place, value in note["steps"])]:
            seen.add(place)
            if value is not None:
                values.setdefault(place, []).append(value)
    scored = {node.id: node.scores[VALUE] for node in tree.nodes if VALUE in node.scores}
    return len(seen) == len(tree) and scored == {place: fmean(found) for place, found in values.items()}


def _nested_outline(root: Record) -> list[_Outline]:
    """The steps of an object of steps within steps, parents before children, without recursion."""
    outline: list[_Outline] = []
    waiting = [(-1, child) for child in reversed(_children(root))]
    while waiting:
        parent, step = waiting.pop()
        outline.append((parent, text_field(step, "text"), _value(step, "mc_value")))
        waiting += [(len(outline) - 1, child) for child in reversed(_children(step))]
    return outline


def _prefixes(states: Sequence[object], text: str, value: str, question: str) -> dict[str, float | None]:
    """Beginnings of solutions without the question, each with the mean of its values."""
    values: dict[str, list[float]] = {}
    for state in states:
        if not isinstance(state, Mapping):
            raise MalformedRecordError(f"has a {text} that is not in an object")
        prefix = text_field(state, text).strip()
        if not prefix.startswith(question):
            raise MalformedRecordError(f"has a {text} that does not begin with the question")
        found = values.setdefault(prefix.removeprefix(question).lstrip(), [])
        if (share_of_right := _value(state, value)) is not None:
            found.append(share_of_right)
    return {prefix: fmean(found) if found else None for prefix, found in values.items()}


def _children(step: Record) -> list[Record]:
    children = step.get("children") or []
    if not isinstance(children, list) or not all(isinstance(child, Mapping) for child in children):
        raise MalformedRecordError("has a step whose children are not a list of steps")
    return children


def _value(step: Record, name: str) -> float | None:
    return None if step.get(name) is None else share(step[name], f"the {name}")


def _outline(values: Mapping[str, float | None]) -> list[_Outline]:
    """Each beginning of a solution as a step below the longest other beginning that it continues."""
    outline: list[_Outline] = []
    open_prefixes: list[tuple[str, int]] = []  # each continues the one before it
    for prefix in sorted(values):  # what a text begins with comes before it, and nothing else between them
        while open_prefixes and not prefix.startswith(open_prefixes[-1][0]):
            open_prefixes.pop()
        before, parent = open_prefixes[-1] if open_prefixes else ("", -1)
        open_prefixes.append((prefix, len(outline)))
        outline.append((parent, prefix.removeprefix(before), values[prefix]))
    return outline


def _build(builder: TreeBuilder, root_value: float | None, outline: Sequence[_Outline], *, exact: bool) -> list[Node]:
    """Add steps whose parents come before them; ``exact`` texts hold their own boundaries."""
    root = builder.tree.root
    if root_value is not None:
        builder.judge(root, VALUE, root_value)
    parents = {parent for parent, _, _ in outline}
    nodes: list[Node] = []
    for place, (parent, text, value) in enumerate(outline):
        above = root if parent < 0 else nodes[parent]
        finished = place not in parents and final_answer(text) is not None
        if exact and not finished:
            node = builder.tree.add(above, Step((), text, end=EndReason.BOUNDARY))
        else:
            node = builder.add(above, text, finished=finished)
        nodes.append(node)
        if value is not None:
            builder.judge(node, VALUE, value)
        if finished:
            builder.grade(node, value if value in (0.0, 1.0) else None)
    return nodes
