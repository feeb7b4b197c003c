"""Records in JSON-lines files, JSON files and data sets on the hub: read in order, or again by their place.

Every reader of records in this package (problems, published supervision, benchmarks, rows of its own) reads them here,
so what a record is, how its place is named and what a user is told of a bad one is the same for all. Files of lines
and data sets are gone through without being held in memory; only a file that is one JSON array is held.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gradatim.errors import GradatimError
from gradatim.hub import Sight, is_hub_id, look

Record = Mapping[str, Any]

Place = tuple[int, int]
"""Where a record lies, in its source's own terms, and its number, which starts at 1."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class MalformedRecordError(ValueError):
    """A record that is not what its reader needs. The message goes on after its place: "has no text ..."."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at one place of a source.

    Attributes:
        place: where :meth:`RecordSource.at` finds it again.
        where: the same for people, such as ``line 3 of 'data.jsonl'``.
        content: the record, or why there is none.
    """

    place: Place
    where: str
    content: Record | MalformedRecordError

    @property
    def number(self) -> int:
        """The number of the line or row, from 1."""
        return self.place[1]

    @property
    def record(self) -> Record:
        """The record.

        Raises:
            MalformedRecordError: if there is none.
        """
        if isinstance(self.content, MalformedRecordError):
            raise self.content
        return self.content


class RecordSource(Protocol):
    """Records in their order.

    Attributes:
        name: what errors call the source: ``'data.jsonl'`` or ``the train split of 'some/set'``.
    """

    name: str

    def __iter__(self) -> Iterator[Entry]: ...

    def at(self, place: Place) -> Entry:
        """What stands at a place that iteration gave."""
        ...


def open_file(path: str | os.PathLike[str]) -> RecordSource:
    """The records of a file of JSON lines, of one JSON array of objects, or of one JSON object that begins with ``{``
    on a line of its own. Blank lines are passed over, and so is a byte-order mark.

    Raises:
        GradatimError: if the file cannot be read, or is an array that is not whole.
    """
    try:
        with open(path, "rb") as file:
            first = next((line for line in file if line.strip()), b"").removeprefix(_BYTE_ORDER_MARK).strip()
    except OSError as error:
        raise _unreadable(path, error) from error
    if first.startswith(b"["):
        return _Rows(_read_array(path), _quoted(path))
    return JsonFiles([path]) if first == b"{" else _JsonLines(path)


def open_hub(name: str, split: str, config: str | None = None, *, as_source: bool = False) -> RecordSource:
    """The records of one split of a data set on the hub, or of its copy in a local folder.

    Args:
        name: the data set's id or folder.
        split: its split.
        config: its configuration.
        as_source: whether the caller takes a local copy as its argument ``source``, which errors then name.

    Raises:
        GradatimError: if it cannot be loaded.
    """
    split_name = f"the {split} split of {name!r}"
    return _Rows(_load_dataset(split_name, name, config, split, as_source), split_name)


def open_hub_splits(name: str) -> dict[str, RecordSource]:
    """The records of every split of a data set on the hub.

    Raises:
        GradatimError: if it cannot be loaded.
    """
    splits = _load_dataset(f"the data set {name!r}", name, None, None, False)
    return {split: _Rows(rows, f"the {split} split of {name!r}") for split, rows in splits.items()}


def check_local(source: str) -> None:
    """Refuse what was meant as a file or a folder, and not as a hub id, if it does not exist.

    Raises:
        GradatimError: if so.
    """
    meant_as_path = source.startswith((".", "/", "~")) or source.endswith((".json", ".jsonl"))
    meant_as_path |= not is_hub_id(source) and "://" not in source
    if meant_as_path and not Path(source).expanduser().exists():
        raise GradatimError(f"there is no file or folder {source!r}; give an existing one or a hub id")


def text_field(record: Record, name: str) -> str:
    """The text in a field of a record.

    Raises:
        MalformedRecordError: if there is no such field or it holds no text.
    """
    value = record.get(name)
    if not isinstance(value, str):
        raise MalformedRecordError(f"has no text in the field {name!r}")
    return value


def text_or_number_field(record: Record, name: str) -> str:
    """The text in a field of a record, also of a number: answers are written as either.

    Raises:
        MalformedRecordError: if there is no such field or it holds neither.
    """
    value = record.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    if not isinstance(value, str):
        raise MalformedRecordError(f"has neither text nor a number in the field {name!r}")
    return value


def list_field(record: Record, name: str) -> list[Any]:
    """The list in a field of a record.

    Raises:
        MalformedRecordError: if there is no such field or it holds no list.
    """
    value = record.get(name)
    if not isinstance(value, list):
        raise MalformedRecordError(f"has no list in the field {name!r}")
    return value


class JsonFiles:
    """One JSON object a file."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self.paths = paths
        self.name = _quoted(paths[0]) if len(paths) == 1 else f"{len(paths)} files"

    def __iter__(self) -> Iterator[Entry]:
        return (self.at((index, index + 1)) for index in range(len(self.paths)))

    def at(self, place: Place) -> Entry:
        path = self.paths[place[0]]
        try:
            return Entry(place, f"the file {_quoted(path)}", _parse(Path(path).read_bytes()))
        except OSError as error:
            raise _unreadable(path, error) from error


class _JsonLines:
    """One JSON object a line; a record lies at the byte at which its line begins."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.name = _quoted(path)

    def __iter__(self) -> Iterator[Entry]:
        try:
            with open(self.path, "rb") as file:
                offset = 0
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield self._entry(line, (offset, number))
                    offset += len(line)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def at(self, place: Place) -> Entry:
        try:
            with open(self.path, "rb") as file:
                file.seek(place[0])
                return self._entry(file.readline(), place)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _entry(self, line: bytes, place: Place) -> Entry:
        return Entry(place, f"line {place[1]} of {self.name}", _parse(line))


class _Rows:
    """A sequence of values; ``name`` is its source's."""

    def __init__(self, rows: Sequence[Any], name: str) -> None:
        self.rows = rows
        self.name = name

    def __iter__(self) -> Iterator[Entry]:
        values: Iterable[Any] = self.rows  # a data set is gone through faster than it is indexed
        return (self._entry(value, (index, index + 1)) for index, value in enumerate(values))

    def at(self, place: Place) -> Entry:
        return self._entry(self.rows[place[0]], place)

    def _entry(self, value: Any, place: Place) -> Entry:
        return Entry(place, f"row {place[1]} of {self.name}", _checked(value))


def _parse(text: bytes) -> Record | MalformedRecordError:
    try:
        return _checked(json.loads(text.removeprefix(_BYTE_ORDER_MARK).decode()))
    except UnicodeDecodeError:
        return MalformedRecordError("is not UTF-8 text")
    except (ValueError, RecursionError) as error:
        return MalformedRecordError(f"is not valid JSON ({_reason(error)})")


def _checked(value: Any) -> Record | MalformedRecordError:
    return value if isinstance(value, Mapping) else MalformedRecordError("is not a JSON object")


def _read_array(path: str | os.PathLike[str]) -> list[Any]:
    try:
        value: list[Any] = json.loads(Path(path).read_bytes().removeprefix(_BYTE_ORDER_MARK).decode())
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise GradatimError(
            f"{_quoted(path)} is not one whole JSON array ({_reason(error)}); mend it or fetch it again"
        ) from error
    return value


def _reason(error: Exception) -> str:
    return str(error).partition(":")[0]


def _load_dataset(what: str, name: str, config: str | None, split: str | None, as_source: bool) -> Any:
    """A data set; what the hub does not give is looked for among those that were loaded from it before."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    what = what if config is None else f"{what}, configuration {config!r}"
    sight = look(name, "dataset") if is_hub_id(name) and not Path(name).is_dir() else Sight()
    try:
        with _without_the_hub() if sight.lack else nullcontext():
            return load_dataset(name, config, split=split)
    except (OSError, ValueError, DatasetsError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        advice = "check the id"
        if sight.lack:
            reason, advice = f"there is no such file or folder, and {sight.lack}", sight.remedy
        message = f"cannot load {what}: {reason}; {advice}"
        if as_source:
            raise GradatimError(
                f"{message}, or give a file, or a folder with train.jsonl and test.jsonl: source='FILE.jsonl'",
                options=("source='FILE.jsonl'",),
            ) from error
        raise GradatimError(f"{message}, or name a local file or folder") from error


@contextmanager
def _without_the_hub() -> Iterator[None]:
    """Have ``datasets`` load what it loaded before, without asking the hub."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _quoted(path: str | os.PathLike[str]) -> str:
    return repr(os.fspath(path))


def _unreadable(path: str | os.PathLike[str], error: OSError) -> GradatimError:
    reason = (error.strerror or type(error).__name__).lower()
    return GradatimError(f"{_quoted(path)} cannot be read ({reason}); check the path and run again")
