"""Rows of JSON-lines files, JSON files, folders of them, and data sets on the hub, by their place.

Published files are large, and rows of one question may lie far apart. So rows can be gone through in order and read
again by their place; only files that are one JSON array are held in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gradatim.errors import GradatimError
from gradatim.store.files import file_error

Place = tuple[int, int]
"""Where a row lies, in the source's own terms, and its number, which starts at 1."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it was found.

    Attributes:
        place: where :meth:`Records.at` finds it again.
        where: the same for people, such as ``"line 3 of 'data.jsonl'"``.
        value: the row, or ``None`` if it is not a JSON object.
    """

    place: Place
    where: str
    value: dict[str, Any] | None


class Records(Protocol):
    """A source of rows."""

    def __iter__(self) -> Iterator[Record]: ...

    def at(self, place: Place) -> Record:
        """The row at a place that iteration gave."""
        ...


def open_records(source: str | os.PathLike[str], split: str) -> Records:
    """The rows of a local file or folder, or of a split of a hub data set.

    A file holds JSON lines, one JSON object, or one JSON array of objects; a folder holds such files, one object each
    (``*.json``).

    Raises:
        GradatimError: if there is no such source or it cannot be read.
    """
    path = Path(source).expanduser()
    name = os.fspath(source)
    if path.is_dir():
        files = sorted(path.glob("*.json"), key=lambda file: (len(file.name), file.name))
        if not files:
            raise GradatimError(f"the folder {name!r} has no .json files; name a file of rows or a hub data set")
        return _JsonFiles(files)
    if path.is_file():
        return _open_file(path)
    if name.startswith((".", "/", "~")) or path.suffix in {".json", ".jsonl"}:
        raise GradatimError(f"there is no file {name!r}; check the path, or give a hub id")
    return _Rows(_load_hub(name, split), f"row {{}} of the {split} split of {name!r}")


def _open_file(path: Path) -> Records:
    try:
        with path.open("rb") as file:
            line = next((line.strip() for line in file if line.strip()), b"")
    except OSError as error:
        raise file_error(path, error) from error
    line = line.removeprefix(b"\xef\xbb\xbf")
    if line.startswith(b"["):
        return _Rows(_load_array(path), f"row {{}} of {os.fspath(path)!r}")
    return _JsonFiles([path]) if line == b"{" else _JsonLines(path)


class _JsonLines:
    """One JSON object a line; a row's place is the byte at which its line begins."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Record]:
        try:
            with self.path.open("rb") as file:
                offset = 0
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield self._record(line, (offset, number))
                    offset += len(line)
        except OSError as error:
            raise file_error(self.path, error) from error

    def at(self, place: Place) -> Record:
        try:
            with self.path.open("rb") as file:
                file.seek(place[0])
                return self._record(file.readline(), place)
        except OSError as error:
            raise file_error(self.path, error) from error

    def _record(self, line: bytes, place: Place) -> Record:
        return Record(place, f"line {place[1]} of {os.fspath(self.path)!r}", _json_object(line))


class _JsonFiles:
    """One JSON object a file."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __iter__(self) -> Iterator[Record]:
        return (self.at((place, place + 1)) for place in range(len(self.paths)))

    def at(self, place: Place) -> Record:
        path = self.paths[place[0]]
        try:
            return Record(place, f"the file {os.fspath(path)!r}", _json_object(path.read_bytes()))
        except OSError as error:
            raise file_error(path, error) from error


class _Rows:
    """A sequence of rows; ``where`` has a place for their number."""

    def __init__(self, rows: Sequence[Any], where: str) -> None:
        self.rows = rows
        self.where = where

    def __iter__(self) -> Iterator[Record]:
        return (self.at((place, place + 1)) for place in range(len(self.rows)))

    def at(self, place: Place) -> Record:
        row = self.rows[place[0]]
        return Record(place, self.where.format(place[1]), row if isinstance(row, dict) else None)


def _json_object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):  # malformed JSON or bytes that are not UTF-8
        return None
    return value if isinstance(value, dict) else None


def _load_array(path: Path) -> list[Any]:
    try:
        value: list[Any] = json.loads(path.read_bytes())
    except OSError as error:
        raise file_error(path, error) from error
    except (ValueError, RecursionError) as error:
        raise GradatimError(f"{os.fspath(path)!r} is not whole JSON ({error}); fetch the file again") from error
    return value


def _load_hub(name: str, split: str) -> Sequence[Any]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        rows: Sequence[Any] = load_dataset(name, split=split)
    except (OSError, ValueError, DatasetsError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise GradatimError(f"the {split} split of data set {name!r} cannot be loaded: {reason}") from error
    return rows
