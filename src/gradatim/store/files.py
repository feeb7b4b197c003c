"""Writing files so that a crash leaves either the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from gradatim.errors import GradatimError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def file_error(path: str | os.PathLike[str], error: OSError) -> GradatimError:
    """The sentence that a user should see when reading or writing ``path`` failed with ``error``."""
    name = os.fspath(path)
    if error.errno in _NO_SPACE:
        return GradatimError(
            f"there is no space left to write {name!r}; free some space and run again (what was finished is kept)"
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return GradatimError(f"{name!r} cannot be opened for lack of permission; choose another place or change it")
    reason = error.strerror or type(error).__name__
    return GradatimError(f"{name!r} cannot be read or written ({reason.lower()}); check the path and run again")


def sync_folder(folder: Path) -> None:
    """Make a file's creation or renaming in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; what was written there replaces ``path`` if the block succeeds.

    The temporary file lies in the same folder because a rename is atomic within one file system only, and keeps the
    suffix of ``path`` because writers such as matplotlib choose their format by it. Missing folders are made.

    Raises:
        GradatimError: if the disk is full or the place cannot be written; ``path`` is then as it was.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise file_error(target, error) from error
    finally:
        with suppress(OSError):  # in a folder that cannot be reached there is nothing to clear away
            temporary.unlink()


@contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open ``path`` for writing UTF-8 text that replaces the old file only once all of it is on the disk.

    Raises:
        GradatimError: as :func:`atomic_path`.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file atomically (see :func:`atomic_writer`)."""
    with atomic_writer(path) as file:
        file.write(text)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file atomically, indented, keys in their given order.

    Numbers that JSON does not know (not-a-number, infinities) become ``null``, so that any reader can load the file.
    """
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
