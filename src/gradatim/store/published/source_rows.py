"""The rows that a tree was read from, kept in its metadata so that they can be written again as they were.

A tree holds each step once and the mean of its labels; rows repeat steps, and say different things of one. What cannot
be told from the tree is kept here: the last step of every row, its own labels, and its further fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from gradatim.records import Record
from gradatim.supervision.rows import labelled_paths
from gradatim.supervision.step_labels import StepLabels
from gradatim.tree import Node, Tree

_METADATA = "published"


@dataclass(frozen=True, slots=True)
class LabelledSolution:
    """One row of a format whose rows are solutions.

    Attributes:
        path: its steps, root left out.
        labels: a label for each step; ``None`` for a step that the row does not judge.
        as_read: whether it stood so in a file.
        other_fields: what else its row told, where that was of the format that is written.
    """

    path: Sequence[Node]
    labels: Sequence[float | None]
    as_read: bool = False
    other_fields: Mapping[str, Any] = field(default_factory=dict)

    def known_labels(self) -> list[float]:
        """The labels that are known."""
        return [label for label in self.labels if label is not None]


def note_solution(
    tree: Tree, format: str, leaf: Node, labels: Sequence[float | None], *, name: str, other_fields: Mapping[str, Any]
) -> None:
    """Keep what one row said; ``name`` is the score that its labels are read into."""
    notes = tree.metadata.setdefault(_METADATA, {"format": format, "rows": []})
    row = {"leaf": leaf.id, "score": name, "labels": list(labels)}
    notes["rows"].append({**row, "other_fields": dict(other_fields)} if other_fields else row)


def labelled_solutions(tree: Tree, value: str, format: str) -> Iterator[LabelledSolution]:
    """The labelled solutions of a tree: the rows that it was read from while its scores are still theirs, else one for
    each path of labelled steps."""
    notes = tree.metadata.get(_METADATA, {"format": format, "rows": []})
    read = [
        LabelledSolution(
            tree.nodes[row["leaf"]].path()[1:],
            row["labels"],
            True,
            row.get("other_fields", {}) if notes["format"] == format else {},
        )
        for row in notes["rows"]
        if row["score"] == value
    ]
    if read and _means(read) == {node.id: node.scores[value] for node in tree.nodes[1:] if value in node.scores}:
        yield from read
        return
    for path in labelled_paths(StepLabels(value=value)(tree)):
        yield LabelledSolution(path, [node.scores[value] for node in path])


def labelled_beginnings(tree: Tree, value: str, format: str) -> Iterator[LabelledSolution]:
    """As :func:`labelled_solutions`, each up to its first step without a label: for formats that need one for each."""
    for each in labelled_solutions(tree, value, format):
        count = each.labels.index(None) if None in each.labels else len(each.labels)
        if count:
            yield replace(each, path=each.path[:count], labels=each.labels[:count])


def format_as_read(tree: Tree) -> str | None:
    """The format of the rows that a tree was read from, if it is known."""
    name: str | None = tree.metadata.get(_METADATA, {}).get("format")
    return name


def score_as_read(tree: Tree) -> str | None:
    """The score that the labels of a tree's rows were read into, if they are known."""
    rows = tree.metadata.get(_METADATA, {"rows": []})["rows"]
    return rows[0]["score"] if rows else None


def other_fields(row: Record, known: set[str]) -> dict[str, Any]:
    """The fields of a row that its format does not know, as JSON values."""
    return {name: json.loads(json.dumps(value, default=str)) for name, value in row.items() if name not in known}


def _means(solutions: Sequence[LabelledSolution]) -> dict[int, float]:
    labels: dict[int, list[float]] = {}
    for solution in solutions:
        for node, label in zip(solution.path, solution.labels, strict=True):
            if label is not None:
                labels.setdefault(node.id, []).append(label)
    return {place: fmean(values) for place, values in labels.items()}
