"""Which files the interpreter needs: the only ones that a program may read. Found once, by the caller."""

from __future__ import annotations

import os
import site
import sys
from functools import cache

_SYSTEM_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/lib32", "/etc/ld.so.cache")


@cache
def executable() -> str:
    """The interpreter itself, outside any virtual environment, without symbolic links."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)


@cache
def readable_paths() -> tuple[str, ...]:
    """The interpreter, its standard library and the system's shared libraries: files and folders that exist, none of
    them inside another."""
    own = [executable(), os.path.dirname(os.path.realpath(os.__file__))]
    for prefix in (sys.base_prefix, sys.base_exec_prefix):
        own += [os.path.join(os.path.realpath(prefix), folder) for folder in ("lib", sys.platlibdir)]
    paths = [path for path in dict.fromkeys([*_SYSTEM_LIBRARIES, *own]) if os.path.exists(path)]
    return tuple(path for path in paths if not any(_is_inside(path, other) for other in paths))


@cache
def hidden_paths() -> tuple[str, ...]:
    """Folders of installed packages within the readable ones; a program has the standard library alone."""
    folders = site.getsitepackages([sys.base_prefix, sys.base_exec_prefix])
    existing = {os.path.realpath(folder) for folder in folders if os.path.isdir(folder)}
    readable = [os.path.realpath(path) for path in readable_paths()]
    return tuple(sorted(folder for folder in existing if any(_is_inside(folder, path) for path in readable)))


def _is_inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")
