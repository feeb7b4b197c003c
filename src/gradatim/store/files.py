"""Writing files and folders so that a crash leaves either the old one or the new one, never half of one."""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from gradatim.errors import GradatimError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TEMPORARY = re.compile(r"\..+\.(\d+(\.\w+)?|partial|removed)")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)


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
    suffix of ``path`` because writers such as matplotlib choose their format by it. Missing folders are made. What
    earlier writers of ``path`` left behind when they were killed is removed.

    Raises:
        GradatimError: if the disk is full or the place cannot be written; ``path`` is then as it was.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_temporaries_of(target)
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
def atomic_folder(path: str | os.PathLike[str], keep: Callable[[Path], bool] = lambda path: False) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; what was written there replaces ``path`` if the block succeeds.

    An old folder of that name is exchanged for the new one in a single step where the file system can do that. Where
    it cannot, a crash may leave neither under that name; the next writer then finds the old one again.

    Args:
        path: the folder.
        keep: whether something that the old folder holds, and the new one does not, stays; else it is deleted.

    Raises:
        GradatimError: if the disk is full or the place cannot be written; ``path`` is then as it was. Also if it is
            the current folder, which cannot be replaced.
    """
    target = Path(path).resolve()
    if target == Path.cwd():
        raise GradatimError(f"the current folder {str(target)!r} cannot be replaced; name a folder in it")
    partial = target.with_name(f".{target.name}.partial")
    try:
        remove_temporaries_of(target)
        partial.mkdir(parents=True)
        yield partial
        if target.is_dir():
            for old in filter(keep, target.iterdir()):
                _link_missing(old, partial / old.name)
        sync_tree(partial)
        _replace_folder(partial, target)
    except OSError as error:
        raise file_error(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Make all that was written into ``folder``, and the folders in it, durable."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            descriptor = os.open(Path(place) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(place))


def remove_folder(folder: Path) -> None:
    """Delete a folder so that a crash leaves all of it or, under its name, nothing."""
    removed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Bring an old folder back that a crash left aside while it was replaced."""
    old = folder.with_name(f".{folder.name}.old")
    if old.is_dir():
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)


def remove_temporaries_of(target: Path) -> None:
    """Remove what earlier writers of a file, or of a folder, left behind when they were killed.

    That is: temporary files whose processes are no more, and a folder that was being written or removed. An old
    folder that was being replaced comes back.
    """
    restore_folder(target)
    for kind in ("partial", "removed"):
        shutil.rmtree(target.with_name(f".{target.name}.{kind}"), ignore_errors=True)
    for path in target.parent.glob(f".{_literal(target.stem)}.*{_literal(target.suffix)}"):
        number = path.name.removeprefix(f".{target.stem}.").removesuffix(target.suffix)
        if number.isdecimal() and not _is_running(int(number)):
            path.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what writers left behind in ``folder``, and the folders in it, when they were killed.

    To be called only where nobody else is writing.
    """
    for place, names, files in os.walk(folder):
        for name in [*names, *files]:
            path = Path(place) / name
            if name.startswith(".") and name.endswith(".old"):
                restore_folder(path.with_name(name[1:-4]))
            elif _TEMPORARY.fullmatch(name):
                shutil.rmtree(path, ignore_errors=True) if name in names else path.unlink(missing_ok=True)
        names[:] = [name for name in names if (Path(place) / name).is_dir()]


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


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _link_missing(source: Path, target: Path) -> None:
    """Give a file or folder a second name, unless that is taken; where this fails it is copied."""

    def link(file: str, place: str) -> None:
        try:
            os.link(file, place)
        except OSError:
            shutil.copy2(file, place)

    if source.is_dir() and not target.exists():
        shutil.copytree(source, target, copy_function=link, symlinks=True)
    elif not target.exists():
        link(str(source), str(target))


def _replace_folder(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        old = target.with_name(f".{target.name}.old")
        target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    sync_folder(target.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places in one step; ``False`` where the system or the file system does not know how."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    result: int = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return result == 0
