"""Problems from records: a JSON-lines file, a folder of splits, or a data set on the hub.

Tasks whose problems are data, not generated, all read them here. A task says how one record becomes one problem; where
the records lie, how they are numbered, what happens to bad ones and which are held out is the same for all.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from gradatim.errors import GradatimError
from gradatim.tree import Problem

SPLITS = ("train", "validation", "test")

Record = Mapping[str, Any]


class BadRecordError(ValueError):
    """A record that is no problem. The message goes on after the line's number: "has no text in the field 'x'"."""


class ProblemSource:
    """The problems of one source, by split.

    Args:
        source: a data set's id on the hub (or its copy in a local folder), loaded with ``datasets.load_dataset``; or
            a folder with one ``.jsonl`` file a split; or one ``.jsonl`` file.
        problem: makes a problem of its id and its record; raises :class:`BadRecordError` where it cannot.
        key: the text by which problems are held out, usually the question: equal texts are never on two sides.
        task: what ids and errors call the task.
        config: the hub data set's configuration.
        splits: the source's own name for each split that it has, such as ``{"train": "train", "test": "dev"}``.
            ``validation`` and ``test`` are held out of ``train`` where the source has none of its own. Without it, a
            file is all ``train``, and anything else has ``train`` and ``test``.
        seed: chooses which problems are held out, and the order of shuffled ones.
        validation_fraction: share of ``train`` that is held out as ``validation``, and the same share again as
            ``test`` where the source has none. Which problems these are depends on a hash of ``key`` alone; the parts
            are disjoint.
        shuffle: whether problems come in an order of their own instead of the source's. For sources sorted by subject
            or difficulty, so that the first problems are a fair sample.
        on_bad_line: whether a malformed line or record is refused with its line number, or skipped with a warning
            that names the lines.

    Raises:
        GradatimError: if a local source does not exist or an argument is out of its range; :meth:`problems` raises it
            if the source cannot be read.
    """

    def __init__(
        self,
        source: str,
        problem: Callable[[str, Record], Problem],
        *,
        key: Callable[[Problem], str],
        task: str,
        config: str | None = None,
        splits: Mapping[str, str] | None = None,
        seed: int = 0,
        validation_fraction: float = 0.05,
        shuffle: bool = False,
        on_bad_line: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        if not 0 < validation_fraction < 0.5:
            raise GradatimError(f"validation_fraction must be above 0 and below 0.5, got {validation_fraction}")
        if on_bad_line not in ("refuse", "skip"):
            raise GradatimError(f"on_bad_line must be 'refuse' or 'skip', got {on_bad_line!r}")
        path = Path(source).expanduser()
        if not path.exists() and (source.startswith((".", "/", "~")) or source.endswith((".json", ".jsonl"))):
            raise GradatimError(f"there is no file or folder {source!r}; give an existing one or a hub id")
        self.source = source
        self._path = path
        self._problem = problem
        self._key = key
        self._task = task
        self._config = config
        self._seed = seed
        self._validation_fraction = validation_fraction
        self._shuffle = shuffle
        self._on_bad_line = on_bad_line
        self._parts = {"train": path.stem} if path.is_file() else dict(splits or {"train": "train", "test": "test"})
        _check_splits(self._parts)
        self._held_out = [split for split in SPLITS[1:] if "train" in self._parts and split not in self._parts]
        self._read: dict[str, list[Problem]] = {}

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``"train"``, ``"validation"`` or ``"test"``, always the same.

        Raises:
            GradatimError: if the split is unknown or empty, or the source is missing or malformed.
        """
        if split not in SPLITS:
            raise GradatimError(f"{self._task} has no split {split!r}; choose one of {', '.join(SPLITS)}")
        if count is not None and count < 0:
            raise GradatimError(f"the number of problems must be 0 or more, got {count}")
        if split not in self._parts and split not in self._held_out:
            raise GradatimError(
                f"{self.source!r} has no {split} split, since splits names {', '.join(self._parts)}; name it there"
            )
        problems = self._split(split)
        if not problems:
            raise GradatimError(f"the {split} split of {self.source!r} has no problems; give a larger source")
        return problems[:count]

    def _split(self, split: str) -> list[Problem]:
        """All problems of a split; a part that several splits share is read once."""
        cut = split == "train" or split in self._held_out
        part = self._parts["train" if cut else split]
        if part not in self._read:
            self._read[part] = self._load(part)
        return [problem for problem in self._read[part] if not cut or self._side(problem) == split]

    def _side(self, problem: Problem) -> str:
        """The split to which a problem of the source's ``train`` goes."""
        place = self._place(self._key(problem).strip())
        for number, split in enumerate(self._held_out, 1):
            if place < number * self._validation_fraction:
                return split
        return "train"

    def _place(self, text: str) -> float:
        """A number in [0, 1) that depends on the seed and the text alone."""
        digest = hashlib.sha256(f"{self._seed}:{text}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def _load(self, part: str) -> list[Problem]:
        records, where = self._records(part)
        problems = self._convert(part, records, where)
        if self._shuffle:
            # Another text than the one that holds problems out: its order would begin with those of the other splits.
            problems.sort(key=lambda problem: self._place(f"order:{problem.id}"))
        return problems

    def _records(self, part: str) -> tuple[Iterator[tuple[int, Any]], str]:
        """The numbered records of a part, and what errors call the place that they come from."""
        if self._path.is_file():
            return _json_lines(self._path), self._path.name
        if any((self._path / f"{name}.jsonl").is_file() for name in self._parts.values()):
            path = self._path / f"{part}.jsonl"
            if not path.is_file():
                raise GradatimError(f"the folder {self.source!r} has no {part}.jsonl")
            return _json_lines(path), path.name
        rows = _hub_rows(str(self._path) if self._path.is_dir() else self.source, self._config, part)
        return rows, f"{part} split of {self.source!r}"

    def _convert(self, part: str, records: Iterable[tuple[int, Any]], where: str) -> list[Problem]:
        """Turn numbered records (lines of JSON, or rows) into problems."""
        problems: list[Problem] = []
        bad: dict[int, str] = {}
        for number, record in records:
            try:
                problems.append(self._problem(f"{self._task}/{part}/{number}", _parse(record)))
            except BadRecordError as error:
                if self._on_bad_line == "refuse":
                    raise GradatimError(
                        f"line {number} of {where} {error}; mend it, or skip such lines with on_bad_line='skip'"
                    ) from None
                bad[number] = str(error)
        if bad:
            numbers = ", ".join(map(str, list(bad)[:20])) + (", ..." if len(bad) > 20 else "")
            warnings.warn(f"skipped {len(bad)} bad lines of {where}: {numbers}", stacklevel=6)
        if not problems:
            first = next((f": every line is malformed (line {number} {error})" for number, error in bad.items()), None)
            raise GradatimError(f"{where} has no problems{first or ': it is empty'}")
        return problems


def text_field(record: Record, field: str) -> str:
    """The text in a field of a record.

    Raises:
        BadRecordError: if there is no such field or it holds no text.
    """
    value = record.get(field)
    if not isinstance(value, str):
        raise BadRecordError(f"has no text in the field {field!r}")
    return value


def _check_splits(parts: Mapping[str, str]) -> None:
    for split in parts:
        if split not in SPLITS:
            raise GradatimError(f"splits cannot name {split!r}; its keys are {', '.join(SPLITS)}")
    if len(set(parts.values())) < len(parts):
        raise GradatimError("splits gives two splits the same records; leave one out to have it held out of train")


def _json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number the lines of a file from 1, blank ones left out."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise GradatimError(f"cannot read {path.name}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, line


def _parse(record: Any) -> Record:
    """The record on a line of JSON; a row is one already."""
    if isinstance(record, bytes):
        try:
            record = json.loads(record.decode())
        except (ValueError, RecursionError) as error:
            raise BadRecordError(f"is not valid JSON ({str(error).partition(':')[0]})") from None
    if not isinstance(record, Mapping):
        raise BadRecordError("is not a JSON object")
    return record


def _hub_rows(source: str, config: str | None, part: str) -> Iterator[tuple[int, Any]]:
    """Number the rows of a hub data set's split from 1."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        rows = load_dataset(source, config, split=part)
    except (OSError, ValueError, DatasetsError) as error:
        raise GradatimError(
            f"cannot load the {part} split of data set {source!r}, "
            f"{f'configuration {config!r}' if config else 'without a configuration'}: "
            f"{str(error).strip().partition(chr(10))[0]}"
        ) from error
    yield from enumerate(rows, 1)
