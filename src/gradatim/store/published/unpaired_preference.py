"""Unpaired preferences: completions that are good or bad, each by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradatim.part import name_of, part
from gradatim.records import Record
from gradatim.store.published.base import LABEL, LabelFormat, TreeBuilder, share
from gradatim.store.published.completions import CompletionFormat
from gradatim.store.published.source_rows import format_as_read, labelled_solutions, other_fields
from gradatim.supervision.rows import unpaired_preference_rows
from gradatim.supervision.step_labels import StepLabels
from gradatim.supervision.terms import labelled_step
from gradatim.tree import Tree

_KNOWN = {"prompt", "completion", "label"}


@part
class UnpairedPreference(CompletionFormat, LabelFormat):
    """Unpaired preferences, TRL's layout (trl-lib/kto-mix-14k and others): `prompt`, `completion`, `label`.

    The label of a completion that ends its solution is its reward. Of other trees each labelled step is a row, with the
    steps before it in its prompt.
    """

    def matches(self, row: Record) -> bool:
        return row.keys() >= _KNOWN

    def read(self, row: Record, builder: TreeBuilder) -> None:
        label = share(row.get("label"), "the label")
        text, finished = self._completion(row, "completion")
        builder.add_solution(
            [text], [label], format=self, name=LABEL, finished=finished, other_fields=other_fields(row, _KNOWN)
        )

    def rows(self, tree: Tree, value: str) -> Iterator[dict[str, Any]]:
        if format_as_read(tree) != name_of(self):
            yield from map(dict, unpaired_preference_rows(StepLabels(value=value)(tree), threshold=self.threshold))
            return
        for solution in labelled_solutions(tree, value, name_of(self)):
            terms = [labelled_step(solution.path[-1], label) for label in solution.known_labels()]
            for row in unpaired_preference_rows(terms, threshold=self.threshold):
                yield {**row, **solution.other_fields}
