"""Labelled steps from files, folders, patterns and hub data sets: rows of any published format, or trees of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import make, options
from gradatim.store.published import read_published
from gradatim.store.published.base import KIND, LABEL, VALUE
from gradatim.store.trees import FIRST_ROUND, TreeStore, meant_store
from gradatim.suggestions import suggestion
from gradatim.supervision.step_labels import StepLabels
from gradatim.supervision.terms import Term
from gradatim.tree import Tree

_STORE_BEGINS = b'{"crc32":'
_SUFFIXES = (".jsonl", ".json")


@options
class RowOptions:
    """How sources of labelled steps are read."""

    format: str | dict[str, Any] = "auto"
    """A published format, by its name and perhaps its options; `auto` tells it from each source's first row."""
    split: str = "train"
    """Which split of a hub data set."""
    limit: PositiveInt | None = None
    """So many trees at most, of all sources together."""
    malformed: Literal["refuse", "skip"] = "refuse"
    """`refuse` a source at a malformed row, or `skip` the row with a warning."""
    trees: str = FIRST_ROUND
    """Which trees of a run folder."""
    value: str | None = None
    """The score of trees that says what a step is worth; `None` takes `label`, and `value` where a step has none."""

    def __post_init__(self) -> None:
        if self.format != "auto":
            make(KIND, self.format)


def read_labelled_trees(sources: Sequence[str | os.PathLike[str]], options: RowOptions) -> Iterator[Tree]:
    """The trees of all sources, in their order; rows of one source that ask the same question share a tree.

    A source is a file of rows or of trees, a run folder, a folder of ``.jsonl`` or ``.json`` files (files whose names
    begin with ``test`` are for evaluation and left out), a pattern such as ``data/train_*.jsonl``, or a data set's id
    on the hub.

    Raises:
        GradatimError: if a source does not exist, cannot be read, or is malformed and that is not to be skipped.
    """
    if not sources:
        raise GradatimError("there are no rows to learn from; name at least one file, folder or hub data set")
    opened = [place for source in sources for place in _places(os.path.expanduser(os.fspath(source)), options)]
    return islice((tree for place in opened for tree in _trees(place, options)), options.limit)


def tree_labels(tree: Tree, options: RowOptions, kind: Literal["soft", "hard"], threshold: float) -> list[Term]:
    """The labelled steps of a tree that was read, in the order of ``tree.nodes``."""
    names = (LABEL, VALUE) if options.value is None else (options.value,)
    found: dict[int, Term] = {}
    for name in names:
        for label in StepLabels(value=name, kind=kind, threshold=threshold)(tree):
            found.setdefault(label.ends[0].id, label)
    return [found[place] for place in sorted(found)]


def _places(source: str, options: RowOptions) -> list[str]:
    """The files, or the folder or hub id, that a source stands for."""
    path = Path(source)
    if path.is_dir():
        stores = sorted(file.stem for file in (path / "trees").glob("*.jsonl"))
        if stores:
            name = meant_store(options.trees, stores)
            if name not in stores:
                raise GradatimError(f"{source!r} has no trees called {name!r}; {suggestion(name, stores)}")
            return [str(path / "trees" / f"{name}.jsonl")]
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
        if not any(file.suffix == ".jsonl" for file in files):
            return [source]  # one JSON object a file, or a copy of a hub data set
        kept = [str(file) for file in files if not file.name.startswith("test")]
        if not kept:
            raise GradatimError(f"the folder {source!r} has test files only; name those to learn from one by one")
        return kept
    if path.is_file() or not any(sign in source for sign in "*?["):
        return [source]
    matches = sorted(glob(source))
    if not matches:
        raise GradatimError(f"no file matches {source!r}; check the pattern")
    return matches


def _trees(place: str, options: RowOptions) -> Iterator[Tree]:
    if _is_store(place):
        yield from TreeStore(place, damaged=options.malformed)
        return
    yield from read_published(place, options.format, split=options.split, malformed=options.malformed)


def _is_store(place: str) -> bool:
    """Whether a file holds trees as a store writes them."""
    try:
        with open(place, "rb") as file:
            return file.read(len(_STORE_BEGINS)) == _STORE_BEGINS
    except OSError:
        return False  # no file, or one of which its reader tells what is wrong
