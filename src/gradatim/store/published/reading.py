"""Published data sets as trees."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from gradatim.errors import GradatimError
from gradatim.part import make, name_of, names
from gradatim.records import (
    Entry,
    JsonFiles,
    MalformedRecordError,
    Place,
    RecordSource,
    check_local,
    open_file,
    open_hub,
)
from gradatim.store.published.base import KIND, PublishedFormat, Question, TreeBuilder
from gradatim.tree import Tree


def read_published(
    source: str | os.PathLike[str],
    format: str | Mapping[str, Any] | PublishedFormat = "auto",
    *,
    split: str = "train",
    merge: bool = True,
    limit: int | None = None,
    malformed: Literal["refuse", "skip"] = "refuse",
) -> Iterator[Tree]:
    """Read a published data set of process supervision or preferences as trees of text steps, one tree at a time.

    Hard labels and human judgements are in ``node.scores["label"]``, estimated values in ``node.scores["value"]``;
    ``StepLabels(value=...)`` reads them. Each step that another can follow ends in a line end, and so does the prompt
    of step labels. Steps that end a solution are finished, with ``node.reward`` and ``node.answer`` where the data tell
    them.

    The id of a problem is a hash of its question, the same whatever file it stands in.

    Args:
        source: a JSON-lines or JSON file, a folder of JSON files, or a hub data set's id.
        format: a format, its name and perhaps its options as :func:`gradatim.part.make` takes them (``gradatim parts
            store/published`` lists them), or ``"auto"`` to tell it from the first row.
        split: of a hub data set.
        merge: make one tree of all rows of a question, wherever they lie: the source is then gone through once to find
            them, before the first tree is made, and only their places are held in memory. Without it, every row is a
            tree of its own, in the order of the source, and ids of repeated questions end in ``-2``, ``-3``, ...; so
            always where a format says something of a whole row (a preference).
        limit: so many trees at most.
        malformed: ``"refuse"`` the source at a row that does not follow its format with an error that names the row,
            or ``"skip"`` the row with a warning.

    Raises:
        GradatimError: at once, if the source cannot be read or is of no known format; from the iterator, if a row is
            malformed and is not to be skipped, or no row is left.
    """
    if malformed not in ("refuse", "skip"):
        raise GradatimError(f"malformed must be 'refuse' or 'skip', got {malformed!r}")
    if limit is not None and limit < 1:
        raise GradatimError(f"the limit must be 1 tree or more, got {limit}")
    records = _open(os.fspath(source), split)
    skip = malformed == "skip"
    layout = _detect(records, skip) if format == "auto" else make(KIND, format)
    layout = layout.informed(entry.content for entry in records if isinstance(entry.content, Mapping))
    reader = _Reader(records, layout, skip=skip)
    return islice(reader.merged_trees() if merge and layout.merges else reader.single_trees(), limit)


class _Reader:
    """Goes through one source."""

    def __init__(self, records: RecordSource, layout: PublishedFormat, *, skip: bool) -> None:
        self.records = records
        self.layout = layout
        self.skip = skip

    def merged_trees(self) -> Iterator[Tree]:
        places: dict[str, list[Place]] = {}
        for entry, question in self._questions():
            places.setdefault(_hash(question.key), []).append(entry.place)
        made = 0
        for problem_id, rows in places.items():
            tree = self._tree(problem_id, [self.records.at(place) for place in rows])
            if tree is not None:
                made += 1
                yield tree
        self._check_any(made)

    def single_trees(self) -> Iterator[Tree]:
        seen: Counter[str] = Counter()
        made = 0
        for entry, question in self._questions():
            problem_id = _hash(question.key)
            suffix = f"-{seen[problem_id] + 1}" if seen[problem_id] else ""
            tree = self._tree(problem_id + suffix, [entry])
            if tree is not None:
                made += 1
                seen[problem_id] += 1
                yield tree
        self._check_any(made)

    def _questions(self) -> Iterator[tuple[Entry, Question]]:
        """Every row that says what it asks."""
        for entry in self.records:
            try:
                question = self.layout.question(entry.record)
            except MalformedRecordError as error:
                self._report(entry, error)
            else:
                yield entry, question

    def _tree(self, problem_id: str, entries: list[Entry]) -> Tree | None:
        """One tree of rows of one question; ``None`` if all of them are malformed."""
        builder = None
        for entry in entries:
            fresh = builder or TreeBuilder(problem_id, self.layout.question(entry.record))
            try:
                self.layout.read(entry.record, fresh)
                builder = fresh
            except MalformedRecordError as error:
                self._report(entry, error)
        return None if builder is None else builder.build()

    def _report(self, entry: Entry, error: MalformedRecordError) -> None:
        message = f"{entry.where} {error}"
        if not self.skip:
            raise GradatimError(
                f"{message}; mend it, or pass over such rows with malformed='skip'", options=("malformed='skip'",)
            ) from None
        warnings.warn(f"{message}; it is skipped", stacklevel=2)

    def _check_any(self, made: int) -> None:
        if not made:
            raise GradatimError(f"every row is malformed as {name_of(self.layout)}; check the format")


def _open(source: str, split: str) -> RecordSource:
    """The rows of a file, of a folder with one JSON object a file (``*.json``), or of a split of a hub data set."""
    path = Path(source).expanduser()
    if path.is_file():
        return open_file(path)
    if not path.is_dir():
        check_local(source)
        return open_hub(source, split)
    files = sorted(path.glob("*.json"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise GradatimError(f"the folder {source!r} has no .json files; name a file of rows or a hub data set")
    return JsonFiles(files)


def _detect(records: RecordSource, skip: bool) -> PublishedFormat:
    """The format of the first row, malformed ones passed over if they are to be skipped."""
    first = next((entry for entry in records if not skip or isinstance(entry.content, Mapping)), None)
    if first is None:
        raise GradatimError(f"{records.name} has no rows; check that it is the right file")
    try:
        row = first.record
    except MalformedRecordError as error:
        raise GradatimError(f"{first.where} {error}, so the format cannot be told; check the file") from None
    known: list[PublishedFormat] = [make(KIND, name) for name in names(KIND)]
    found = next((layout for layout in known if layout.matches(row)), None)
    if found is None:
        raise GradatimError(
            f"{first.where} has the fields {sorted(row)}, which are of no known format; known are "
            f"{', '.join(names(KIND))}"
        )
    return found


def _hash(question: str) -> str:
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()[:16]
