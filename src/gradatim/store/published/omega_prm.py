"""OmegaPRM's search trees with Monte-Carlo values, in the three layouts in which OpenR wrote them.

Luo et al., *Improve Mathematical Reasoning in Language Models by Automated Process Supervision*, 2024,
arXiv:2406.06592; OpenR's ``data/omegaPRM_v2`` and the first MATH-APS file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradatim.records import MalformedRecordError, Record, list_field, text_field
from gradatim.store.published.answers import final_answer
from gradatim.store.published.base import (
    VALUE,
    Question,
    TreeBuilder,
    optional_text,
    question_text,
    share,
    step_text,
)
from gradatim.supervision.labels import has_value
from gradatim.tree import EndReason, Node, Step, Tree

_Outline = tuple[int, str, float | None]
"""One step: its parent's place in the list of steps (-1 for the root), its text, its value."""


@dataclass(frozen=True, slots=True)
class OmegaPrm:
    """One row is one tree: the value of a step is the share of rollouts from it that were right.

    Read are nested steps (``reasoning_steps`` as an object of ``text``, ``mc_value`` and ``children``), lists of
    beginnings of solutions (``reasoning_steps`` of ``solution_prefix`` and ``mc_value``), and the older ``q`` with
    ``states`` of ``state`` and ``mcs``; written is the first. Of beginnings, each becomes a step below the longest
    other one that it continues; they keep their text as it is, since they may end inside a line. The rollouts of
    ``states`` are left out: nothing says whether they were right.

    A leaf that states an answer is finished; its reward is its value if that is 0 or 1. How many rollouts a value
    rests on was never published, so there are no counts.
    """

    name = "omegaprm"
    score = VALUE

    def matches(self, row: Record) -> bool:
        return isinstance(row.get("reasoning_steps"), dict | list) or isinstance(row.get("states"), list)

    def question(self, row: Record) -> Question:
        field = "q" if "states" in row else "question"
        return Question(text_field(row, field).strip(), optional_text(row, "final_answer"))

    def read(self, row: Record, builder: TreeBuilder) -> None:
        steps = row.get("reasoning_steps")
        if isinstance(steps, dict):
            self._read_nested(steps, builder)
        elif isinstance(steps, list):
            self._read_prefixes(steps, "solution_prefix", "mc_value", self.question(row).text, builder)
        else:
            self._read_prefixes(list_field(row, "states"), "state", "mcs", "", builder)

    def _read_nested(self, root: Record, builder: TreeBuilder) -> None:
        root_value = _value(root, "mc_value")
        outline: list[_Outline] = []
        waiting = [(-1, child) for child in reversed(_children(root))]
        while waiting:
            parent, step = waiting.pop()
            outline.append((parent, text_field(step, "text"), _value(step, "mc_value")))
            waiting += [(len(outline) - 1, child) for child in reversed(_children(step))]
        _build(builder, root_value, outline, exact=False)

    def _read_prefixes(
        self, states: Sequence[object], text: str, value: str, question: str, builder: TreeBuilder
    ) -> None:
        values: dict[str, float | None] = {}
        for state in states:
            if not isinstance(state, Mapping):
                raise MalformedRecordError(f"has a {text} that is not in an object")
            prefix = text_field(state, text).strip()
            if not prefix.startswith(question):
                raise MalformedRecordError(f"has a {text} that does not begin with the question")
            values.setdefault(prefix.removeprefix(question).lstrip(), _value(state, value))
        _build(builder, values.pop("", None), _outline(values), exact=True)

    def rows(self, tree: Tree, value: str, threshold: float) -> Iterator[dict[str, Any]]:
        written: dict[int, dict[str, Any]] = {}
        for node in reversed(tree.nodes):  # children before parents, without recursion
            written[node.id] = {
                "text": question_text(tree) if node.is_root else step_text(node),
                "mc_value": node.scores[value] if has_value(node, value) else None,
                "children": [written.pop(child.id) for child in node.children],
            }
        if any(has_value(node, value) for node in tree.nodes[1:]):
            yield {
                "question": question_text(tree),
                "final_answer": tree.problem.answer,
                "reasoning_steps": written[tree.root.id],
            }


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


def _build(builder: TreeBuilder, root_value: float | None, outline: Sequence[_Outline], *, exact: bool) -> None:
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
