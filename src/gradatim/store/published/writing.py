"""Trees as rows of a published data set."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from gradatim.errors import GradatimError
from gradatim.store.files import atomic_writer
from gradatim.store.published.base import PublishedFormat
from gradatim.store.published.formats import published_format
from gradatim.tree import Tree


def write_published(
    trees: Iterable[Tree],
    path: str | os.PathLike[str],
    format: str | PublishedFormat,
    *,
    value: str | None = None,
    threshold: float = 0.5,
) -> int:
    """Write trees as JSON lines in a published format; the file appears whole or not at all.

    What the format has no place for is left out: steps without a label, counts, and in most formats all but the paths
    of labelled steps. Reading the file again with :func:`read_published` gives the rest back.

    Args:
        trees: the trees; they are gone through once.
        path: the file.
        format: a format or its name.
        value: the score that says what a step is worth; by default the one that the format is read into.
        threshold: a step is good in a format of hard labels if its score is above this.

    Returns:
        The number of rows.

    Raises:
        GradatimError: if there is no such format, no step has the score, a text cannot be written in the format, or
            the file cannot be written.
    """
    layout = published_format(format)
    name = layout.score if value is None else value
    count = 0
    scores: set[str] = set()
    with atomic_writer(path) as file:
        for tree in trees:
            scores.update(score for node in tree.nodes[1:] for score in node.scores)
            for row in layout.rows(tree, name, threshold):
                file.write(json.dumps(row) + "\n")
                count += 1
        if name not in scores:
            known = f"choose from {', '.join(sorted(scores))}" if scores else "these trees were not scored"
            raise GradatimError(f"no step has the score {name!r}; {known}")
    return count
