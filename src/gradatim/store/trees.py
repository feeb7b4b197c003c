"""Trees on disk: one append-only file that survives crashes.

The file holds one JSON object a line, ``{"crc32": "...", "problem_id": "...", "tree": {...}}``, so that any reader of
JSON lines can read it. The checksum covers everything after itself; a line whose checksum does not match was either
torn by a crash while it was written (it is then the last one) or damaged later.

An append returns only after the line was flushed to the disk (``fsync``): what was appended survives a power failure.
Growing a tree takes seconds and syncing one milliseconds, so there is nothing to gain from syncing less often.

One process writes a store at a time: the first append takes a lock of the file itself, which the operating system gives
back when the store is closed or the process ends, however it ends. Reading needs no lock and may go on beside a writer.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import warnings
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from filelock import lock_descriptor

from gradatim.errors import GradatimError
from gradatim.store.files import file_error, sync_folder
from gradatim.tree import Tree

FIRST_ROUND, ALL_ROUNDS = "round-1", "rounds"
"""The names of a run's stores of the trees of its first round, and of all rounds of an online training."""
_HEAD = 4096  # bytes at the beginning of a file by which other files are told
_LINE = re.compile(rb'\{"crc32":"([0-9a-f]{8})",("problem_id":("(?:[^"\\]|\\.)*"),"tree":.*\})')


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tree's line is in the file, in bytes; the line number starts at 1."""

    offset: int
    length: int
    line: int


class TreeStore:
    """The trees of many problems in one append-only file.

    A problem stored again replaces its earlier tree for every reader (the file keeps both). Use it as a context
    manager, or call :meth:`close`. Not for use from several threads at once.

    Args:
        path: the file; it is made by the first append. Missing folders are made too.
        damaged: what to do about a damaged line that is not the last: ``"refuse"`` the file with an error that names
            the line, or ``"skip"`` the line with a warning. A torn last line is always left out with a warning,
            and the next append writes over it.

    Raises:
        GradatimError: if the file cannot be read, or a line is damaged and ``damaged`` is ``"refuse"``.
    """

    def __init__(self, path: str | os.PathLike[str], *, damaged: Literal["refuse", "skip"] = "refuse") -> None:
        self.path = Path(path)
        self._damaged = damaged
        self._places: dict[str, _Place] = {}
        self._end = 0  # bytes that have been read and found whole
        self._lines = 0  # lines in them
        self._file_id: tuple[int, int] | None = None
        self._torn_at: int | None = None  # where a torn last line was reported
        self._writer: int | None = None  # the descriptor that holds the lock
        self._read_new_lines()

    def append(self, *trees: Tree) -> None:
        """Write trees at the end; when this returns, they are on the disk. Several at once take one ``fsync``.

        Raises:
            GradatimError: if another process writes the store, the disk is full or the file cannot be written; the
                store is then as it was before and can be used on.
        """
        lines = [encode_line(tree) for tree in trees]
        try:
            writer = self._open_for_writing()
            try:
                _write_all(writer, b"".join(lines), self._end)
                os.fsync(writer)
            except BaseException:
                os.ftruncate(writer, self._end)
                raise
        except OSError as error:
            raise file_error(self.path, error) from error
        for tree, line in zip(trees, lines, strict=True):
            self._lines += 1
            self._places[tree.problem.id] = _Place(self._end, len(line), self._lines)
            self._end += len(line)

    def ids(self) -> list[str]:
        """The ids of the stored problems, in the order in which they were first stored."""
        self._read_new_lines()
        return list(self._places)

    def get(self, problem_id: str) -> Tree | None:
        """The tree stored last for a problem, or ``None``."""
        self._read_new_lines()
        place = self._places.get(problem_id)
        return None if place is None else self._load(place)

    def __iter__(self) -> Iterator[Tree]:
        """Every problem's last tree, read from the disk one at a time, in the order of :meth:`ids`."""
        for problem_id in self.ids():
            yield self._load(self._places[problem_id])

    def __contains__(self, problem_id: object) -> bool:
        self._read_new_lines()
        return problem_id in self._places

    def __len__(self) -> int:
        """The number of stored problems."""
        return len(self.ids())

    def close(self) -> None:
        """Give the lock back; the store can be read on, and a later append takes the lock again."""
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def __enter__(self) -> TreeStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_for_writing(self) -> int:
        """Take the lock once, learn what others wrote before, and cut off a torn last line."""
        if self._writer is not None:
            return self._writer
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        writer = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not lock_descriptor(writer, blocking=False):
                raise GradatimError(
                    f"another run is writing {str(self.path)!r}; wait for it to end, or write to another folder"
                )
            self._read_new_lines()
            self._repair_end(writer)
            if is_new:
                sync_folder(self.path.parent)
        except BaseException:
            os.close(writer)
            raise
        self._writer = writer
        return writer

    def _repair_end(self, writer: int) -> None:
        os.ftruncate(writer, self._end)
        if self._end and os.pread(writer, 1, self._end - 1) != b"\n":
            os.pwrite(writer, b"\n", self._end)  # the crash took nothing but the line's end
            self._end += 1

    def _read_new_lines(self) -> None:
        """Index what was appended since the last look; nothing new costs one ``stat``."""
        try:
            status = os.stat(self.path)
            if self._file_id not in {None, (status.st_dev, status.st_ino)} or status.st_size < self._end:
                self._places.clear()  # somebody replaced the file
                self._end = self._lines = 0
            self._file_id = (status.st_dev, status.st_ino)
            if status.st_size > self._end:
                self._index_lines()
        except FileNotFoundError:
            return
        except OSError as error:
            raise file_error(self.path, error) from error

    def _index_lines(self) -> None:
        bad: _Place | None = None
        with self.path.open("rb") as file:
            if self._end == 0:
                self._refuse_other_files(file.read(_HEAD))
            file.seek(self._end)
            offset, number = self._end, self._lines
            for line in file:
                if offset == self._end and line == b"\n":  # its line was whole but for this; a writer added it
                    offset = self._end = offset + 1
                    continue
                number += 1
                if bad is not None:
                    self._report_damage(bad.line)
                    self._end, self._lines, bad = bad.offset + bad.length, bad.line, None
                place = _Place(offset, len(line), number)
                problem_id = decode_problem_id(line)
                offset += len(line)
                if problem_id is None:
                    bad = place
                    continue
                self._places[problem_id] = place
                self._end, self._lines = offset, number
        if bad is not None:
            self._report_torn_line(bad)

    def _refuse_other_files(self, head: bytes) -> None:
        """Refuse a file that no store wrote, before anything is written to it.

        Raises:
            GradatimError: if ``head``, the file's beginning, is none of a store; says what the file seems to be.
        """
        if b'"crc32":' in head or (b"\n" not in head and b'{"crc32":"'.startswith(head[:10])):
            return
        raise GradatimError(f"{str(self.path)!r} is no file of trees but {_kind_of_file(head)}")

    def _report_damage(self, line: int) -> None:
        message = f"line {line} of {str(self.path)!r} is damaged (its checksum does not match)"
        if self._damaged == "refuse":
            raise GradatimError(
                f"{message}; read the rest with damaged='skip', or restore the file", options=("damaged='skip'",)
            )
        warnings.warn(f"{message}; it is skipped", stacklevel=2)

    def _report_torn_line(self, place: _Place) -> None:
        if self._torn_at != place.offset:
            self._torn_at = place.offset
            warnings.warn(
                f"the last line ({place.line}) of {str(self.path)!r} is not whole: a crash tore it (then its problem "
                "has to be done again), or it is being written right now; it is left out",
                stacklevel=2,
            )

    def _load(self, place: _Place) -> Tree:
        try:
            with self.path.open("rb") as file:
                file.seek(place.offset)
                line = file.read(place.length)
        except OSError as error:
            raise file_error(self.path, error) from error
        if decode_problem_id(line) is None:
            raise GradatimError(f"line {place.line} of {str(self.path)!r} was changed while the store was open")
        return Tree.from_json(json.loads(line)["tree"])


def meant_store(name: str, stored: Collection[str]) -> str:
    """Which of the ``stored`` trees of a run folder a name means: an online training has no store of its first round,
    but one of all its rounds."""
    return ALL_ROUNDS if name == FIRST_ROUND and name not in stored and ALL_ROUNDS in stored else name


def grown_trees(source: Path) -> Path:
    """The file of the trees that a run grew to learn from, where ``source`` is its folder; else ``source`` itself."""
    if not source.is_dir():
        return source
    name = meant_store(FIRST_ROUND, [path.stem for path in (source / "trees").glob("*.jsonl")])
    return source / "trees" / f"{name}.jsonl"


def trees_file(source: str, key: str) -> Path:
    """The file of the trees that an option names: a file, or a run's folder (:func:`grown_trees`).

    Args:
        source: what the option says.
        key: what the option is called.

    Raises:
        GradatimError: if there is none.
    """
    given = Path(source).expanduser()
    if not given.exists():
        raise GradatimError(f"{key} names {source!r}, which is not there; name a run or trees file")
    path = grown_trees(given)
    if not path.is_file():
        raise GradatimError(f"{key} names {source!r}, where there are no trees; name a run or trees file")
    return path


def encode_line(tree: Tree) -> bytes:
    """One tree as a line of a store, its end included. ASCII only: text is escaped, so no byte can be lost."""
    body = json.dumps({"problem_id": tree.problem.id, "tree": tree.to_json()}, separators=(",", ":"))[1:].encode()
    return b'{"crc32":"%08x",%b\n' % (zlib.crc32(body), body)


def decode_problem_id(line: bytes) -> str | None:
    """The problem id of a whole line, or ``None`` if the line is torn or damaged."""
    match = _LINE.fullmatch(line.removesuffix(b"\n"))
    if match is None or int(match[1], 16) != zlib.crc32(match[2]):
        return None
    problem_id = json.loads(match[3])
    return problem_id if isinstance(problem_id, str) else None


def _kind_of_file(head: bytes) -> str:
    """What a file that is no store seems to be, and what can be done with it."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut in two
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return "binary data; name a file that 'gradatim run' or 'gradatim import' wrote"
    if text.lstrip().startswith(("{", "[")):
        return "other JSON; rows of step labels become trees by 'gradatim import'"
    if re.search(r"^[A-Za-z_]+:", text, re.MULTILINE):
        return "YAML; name the run folder that 'gradatim run' made of a recipe"
    return "other text; name a file that 'gradatim run' or 'gradatim import' wrote"


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``; the operating system may take it in parts."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
