"""The raw records of benchmarks, from files, folders or the hub, with errors that name the place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from gradatim.errors import GradatimError
from gradatim.records import MalformedRecordError, Record, RecordSource, check_local, open_file, open_hub_splits

Source = str | os.PathLike[str]
"""A file, a folder, a pattern of file names or a hub id."""

_BOTH = "true and false"
_SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True, slots=True)
class Row:
    """One raw record; every field is checked where it is taken.

    Attributes:
        values: the record.
        place: where it stands, for errors: ``line 3 of 'gsm8k.jsonl'``.
        part: the file's name without its suffix, or the split of a hub data set.
        number: counts the records of the part from 1.
    """

    values: Record
    place: str
    part: str
    number: int

    def refuse(self, reason: str) -> GradatimError:
        """The error that says what is wrong with this record; ``reason`` goes on after its place."""
        name = next((self.values[key] for key in ("id", "idx") if isinstance(self.values.get(key), str)), None)
        return GradatimError(f"{self.place}{'' if name is None else f' ({name})'} {reason}")

    def field(self, name: str) -> Any:
        if name not in self.values:
            raise self.refuse(f"has no field {name!r}; give a file in this benchmark's layout")
        return self.values[name]

    def text(self, name: str) -> str:
        """A text that is not empty."""
        value = self.field(name)
        if not isinstance(value, str) or not value.strip():
            raise self.refuse(f"has no text in the field {name!r}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of at least one text; single ones may be empty, as they are in published files."""
        value = self._list(name, str, "texts")
        if not value:
            raise self.refuse(f"has nothing in the field {name!r}; give at least one step")
        return value

    def integer(self, name: str) -> int:
        value = self.field(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refuse(f"has {value!r} in the field {name!r}, which must be a whole number")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        return self._list(name, int, "whole numbers")

    def boolean(self, name: str) -> bool:
        value = self.field(name)
        if not isinstance(value, bool):
            raise self.refuse(f"has {value!r} in the field {name!r}, which must be true or false")
        return value

    def labels(self, name: str, of: Sequence[str], what: str = "steps", *, unknown: bool = False) -> tuple[Any, ...]:
        """One true or false for each of ``of``, or also none with ``unknown``."""
        value = self._list(name, bool | None, "true, false and null") if unknown else self._list(name, bool, _BOTH)
        if len(value) != len(of):
            raise self.refuse(f"does not have one label for each of its {what}: {len(value)} for {len(of)}")
        return value

    def rows(self, name: str) -> list[Row]:
        """A list of at least one record within this one."""
        values = self._list(name, Mapping, "records")
        if not values:
            raise self.refuse(f"has nothing in the field {name!r}; give at least one record there")
        return [
            Row(value, f"{self.place}, {name} {number},", self.part, number) for number, value in enumerate(values, 1)
        ]

    def name(self, *fields: str) -> str:
        """The first of ``fields`` that is a text, or the record's part and number."""
        given = (self.values.get(field) for field in fields)
        return next((value for value in given if isinstance(value, str) and value), f"{self.part}-{self.number}")

    def _list(self, name: str, kind: Any, what: str) -> tuple[Any, ...]:
        value = self.field(name)
        good = isinstance(value, list | tuple) and all(
            isinstance(item, kind) and (kind is not int or not isinstance(item, bool)) for item in value
        )
        if not good:
            raise self.refuse(f"must have a list of {what} in the field {name!r}")
        return tuple(value)


def read_rows(sources: Sequence[Source]) -> list[Row]:
    """Every record of some files, folders or hub data sets.

    A source is a ``.jsonl`` file, a ``.json`` file (a list of records, or lines like the former), a pattern such as
    ``data/test_*.jsonl``, a folder with such files, or a data set's id on the hub, of which all splits are read. Files
    are read in the order of their names. Of a folder, files whose names begin with ``train`` are left out: name them
    to have them.

    Raises:
        GradatimError: if a source does not exist, cannot be read or has no records, or a line is not a JSON object.
    """
    rows = [row for source in sources for row in _source_rows(os.fspath(source))]
    if not rows:
        raise GradatimError("there is nothing to evaluate on; name at least one file or data set")
    return rows


def _source_rows(source: str) -> Iterator[Row]:
    path = Path(source).expanduser()
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.suffix in _SUFFIXES and file.name[:5] != "train"]
        if not files:
            raise GradatimError(f"the folder {source!r} has no .json or .jsonl files to evaluate on")
    else:
        files = [path] if path.is_file() else [Path(name) for name in sorted(glob(str(path)))]
    for file in files:
        yield from _rows(file.stem, open_file(file))
    if files:
        return
    if "*" in source:
        raise GradatimError(f"no file matches {source!r}; check the pattern")
    check_local(source)
    for split, records in open_hub_splits(source).items():
        yield from _rows(split, records)


def _rows(part: str, records: RecordSource) -> Iterator[Row]:
    number = 0
    for number, entry in enumerate(records, 1):
        try:
            yield Row(entry.record, entry.where, part, number)
        except MalformedRecordError as error:
            raise GradatimError(f"{entry.where} {error}; mend it") from None
    if not number:
        raise GradatimError(f"{records.name} has no records; give a file that is not empty")
