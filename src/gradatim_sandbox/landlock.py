"""Landlock: file rules that a process imposes on itself, without privileges (Linux 5.13 and later)."""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from gradatim_sandbox.kernel import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TRUNCATE_SINCE = 3
"""The first version that knows that truncating a file writes it."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every machine
_ASK_VERSION, _PATH_BENEATH = 1, 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_FILE = (1 << bit for bit in (0, 1, 2, 3, 5, 8))
_TRUNCATE, _DEVICE_CONTROL = 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _DEVICE_CONTROL
# How many of the rights above a version knows.
_RIGHTS_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = _READ_FILE | _READ_DIR | _WRITE_FILE | _MAKE_FILE | _REMOVE_FILE | _TRUNCATE
_ALL_TCP = 0b11  # bind and connect, since version 4
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # to outside the sandbox, since version 6


def landlock_version() -> int:
    """The kernel's version of Landlock; 0 where there is none."""
    try:
        return libc("syscall", _CREATE_RULESET, None, 0, _ASK_VERSION)
    except OSError:
        return 0


def restrict_files(*, readable: Iterable[str], hidden: Sequence[str], writable: Iterable[str], version: int) -> None:
    """Leave the calling process, and what it executes, these files alone. Irrevocable.

    Args:
        readable: files and folders that may be read and executed.
        hidden: folders within the readable ones whose files may not.
        writable: folders in which files may be read, written, made and removed, and files that may be read and
            written; nothing in them may be executed.
        version: of Landlock, at most the kernel's.

    Raises:
        OSError: if the kernel refuses.
    """
    handled = (1 << _RIGHTS_OF_VERSION.get(version, 16)) - 1
    attributes = struct.pack(
        "=QQQ", handled, _ALL_TCP if version >= 4 else 0, _ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    )
    rules = libc("syscall", _CREATE_RULESET, ctypes.create_string_buffer(attributes, 24), 24, 0)
    for path in readable:
        _allow_reading(rules, path, hidden, handled)
    for path in writable:
        _allow(rules, path, _WRITE & handled)
    libc("syscall", _RESTRICT_SELF, rules, 0)
    os.close(rules)


def _allow_reading(rules: int, path: str, hidden: Sequence[str], handled: int) -> None:
    """Allow a path without what is hidden in it. Rules only ever add, so its parts are allowed one by one."""
    real = os.path.realpath(path)
    if real in hidden:
        return
    if not any(folder.startswith(real + "/") for folder in hidden):
        _allow(rules, path, _READ & handled)
        return
    _allow(rules, path, _READ_DIR)
    for entry in os.scandir(path):
        if not entry.is_symlink():  # a link's target is allowed where it lies, if at all
            _allow_reading(rules, entry.path, hidden, handled)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # a broken link, or what the process could not read anyway
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor), 12)
        libc("syscall", _ADD_RULE, rules, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
