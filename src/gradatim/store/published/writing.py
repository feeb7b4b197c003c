"""Trees as rows of a published data set."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from gradatim.errors import GradatimError
from gradatim.part import make
from gradatim.store.files import atomic_writer
from gradatim.store.published.base import KIND, LABEL, VALUE, PublishedFormat
from gradatim.store.published.source_rows import score_as_read
from gradatim.tree import Tree


def write_published(
    trees: Iterable[Tree],
    path: str | os.PathLike[str],
    format: str | Mapping[str, Any] | PublishedFormat,
) -> int:
    """Write trees as JSON lines in a published format; the file appears whole or not at all.

    Trees that :func:`read_published` gave, written in the format that they were read from, come back the same. Of other
    trees is left out what the format has no place for: steps without a label, counts, and in most formats all but the
    paths of labelled steps.

    Args:
        trees: the trees; they are gone through once.
        path: the file.
        format: a format, or its name and perhaps its options as :func:`gradatim.part.make` takes them.

    Returns:
        The number of rows.

    Raises:
        GradatimError: if there is no such format, no step has the score, nothing is to be written, a text cannot be
            written in the format, or the file cannot be written.
    """
    layout: PublishedFormat = make(KIND, format)
    value = layout.value
    count = 0
    scores: set[str] = set()
    with atomic_writer(path) as file:
        for tree in trees:
            found = {score for node in tree.nodes[1:] for score in node.scores}
            scores |= found
            name = _default_score(tree, layout, found) if value is None else value
            for row in layout.rows(tree, name):
                file.write(json.dumps(row) + "\n")
                count += 1
        if value not in scores and (value is not None or not scores & {layout.score, VALUE, LABEL}):
            known = f"choose from {', '.join(sorted(scores))}" if scores else "these trees were not scored"
            raise GradatimError(f"no step has the score {value or layout.score!r}; {known}")
        if not count:
            raise GradatimError("there are no rows to write: no tree has a label from its first step on")
    return count


def _default_score(tree: Tree, layout: PublishedFormat, found: set[str]) -> str:
    """What the labels of a tree are called where a caller does not say it."""
    names = (score_as_read(tree), layout.score, VALUE, LABEL)
    return next((name for name in names if name is not None and name in found), layout.score)
