"""Prompts and completions: the row format of supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradatim.part import name_of, part
from gradatim.records import Record
from gradatim.store.published.base import LABEL, TreeBuilder
from gradatim.store.published.completions import CompletionFormat
from gradatim.store.published.source_rows import format_as_read, labelled_solutions, other_fields
from gradatim.supervision.right_solutions import RightSolutions
from gradatim.supervision.rows import prompt_completion_rows
from gradatim.supervision.terms import path_term
from gradatim.tree import Tree

_KNOWN = {"prompt", "completion"}


@part
class PromptCompletion(CompletionFormat):
    """Prompts and completions to be imitated, TRL's layout for supervised fine-tuning: `prompt`, `completion`.

    Whoever gives them says that they are right: each has the label 1, and the reward 1 where it ends its solution, so
    that `right_solutions` give them back. Of other trees the right solutions are written.
    """

    def matches(self, row: Record) -> bool:
        return row.keys() >= _KNOWN and "label" not in row

    def read(self, row: Record, builder: TreeBuilder) -> None:
        text, finished = self._completion(row, "completion")
        builder.add_solution(
            [text], [1.0], format=self, name=LABEL, finished=finished, other_fields=other_fields(row, _KNOWN)
        )

    def rows(self, tree: Tree, value: str) -> Iterator[dict[str, Any]]:
        if format_as_read(tree) != name_of(self):
            yield from map(dict, prompt_completion_rows(RightSolutions()(tree)))
            return
        for solution in labelled_solutions(tree, value, name_of(self)):
            for row in prompt_completion_rows([path_term(solution.path[-1])]):
                yield {**row, **solution.other_fields}
