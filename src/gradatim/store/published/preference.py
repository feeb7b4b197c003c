"""Preferences: the row format of preference optimization."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from gradatim.part import name_of, part
from gradatim.records import MalformedRecordError, Record
from gradatim.store.published.base import LABEL, TreeBuilder
from gradatim.store.published.completions import CompletionFormat
from gradatim.store.published.source_rows import format_as_read, labelled_solutions, note_solution, other_fields
from gradatim.supervision.rows import preference_rows
from gradatim.supervision.sibling_pairs import SiblingPairs
from gradatim.tree import Tree

_KNOWN = {"prompt", "chosen", "rejected"}


@part
class Preference(CompletionFormat):
    """Preferences, TRL's layout (trl-lib/ultrafeedback_binarized and most others): `prompt`, `chosen`, `rejected`.

    Each row is a tree of its own, since it says which of its two completions is better and nothing of others: the
    chosen one has the label 1, the rejected one 0, and `sibling_pairs` give the pair back. Neither is called right or
    wrong. Of other trees all pairs of siblings whose values differ are written.
    """

    merges: ClassVar[bool] = False

    def matches(self, row: Record) -> bool:
        return {"chosen", "rejected"} <= row.keys()

    @property
    def _completions(self) -> tuple[str, ...]:
        return ("chosen", "rejected")

    def read(self, row: Record, builder: TreeBuilder) -> None:
        sides = [self._completion(row, name) for name in self._completions]
        if sides[0] == sides[1]:
            raise MalformedRecordError("prefers a completion to itself")
        others = [other_fields(row, _KNOWN), {}]
        for (text, finished), label, rest in zip(sides, (1.0, 0.0), others, strict=True):
            node = builder.add(builder.tree.root, text, finished=finished)
            builder.judge(node, LABEL, label)
            builder.grade(node, None)
            note_solution(builder.tree, name_of(self), node, [label], name=LABEL, other_fields=rest)

    def rows(self, tree: Tree, value: str) -> Iterator[dict[str, Any]]:
        read = format_as_read(tree) == name_of(self)
        rest = next((each.other_fields for each in labelled_solutions(tree, value, name_of(self)) if read), {})
        for row in preference_rows(SiblingPairs(value=value, pairing="all")(tree)):
            yield {**row, **rest}
