"""Modules of a person's own: a file that is not installed, or a module that is."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from gradatim.errors import GradatimError


def import_own(place: str) -> ModuleType:
    """The module that ``place`` names: ``path/to/file.py`` or ``package.module``.

    A file is executed once in a process, and again when it was changed.

    Raises:
        GradatimError: if it is not there or cannot be imported.
    """
    return _import_file(Path(place).expanduser()) if place.endswith(".py") else _import_module(place)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise GradatimError(f"there is no file {str(path)!r}; give the path of an existing one")
    # The name depends on the place, so that two files task.py are two modules, and on when the file was changed last.
    place = f"{path.resolve()} {path.stat().st_mtime_ns}"
    name = f"gradatim_own_{path.stem}_{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # every .py file has one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise GradatimError(f"cannot import {str(path)!r}: {type(error).__name__}: {error}; mend it") from error
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise GradatimError(
            f"cannot import the module {name!r}: {type(error).__name__}: {error}; "
            "for a file that is not installed write its path, such as path/to/file.py:Class"
        ) from error
