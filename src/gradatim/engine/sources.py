"""Where a model, its tokenizer or an adapter is loaded from: a folder, the hub, or what was fetched from it before.

A name is looked for beside the program first, then in one quick look at the hub (:mod:`gradatim.hub`), so that a
misspelt one is an error in seconds. What lies in the hub's cache is loaded from there where the hub does not give it.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from gradatim.errors import GradatimError
from gradatim.hub import cached_file, fetched_file, is_hub_id, look
from gradatim.models import SHIPPED, resolve_model, shipped_models

Loaded = TypeVar("Loaded")
ADAPTER_CONFIG = "adapter_config.json"
_PARTS = ("config.json", ADAPTER_CONFIG, "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Source:
    """Where something is loaded from.

    Attributes:
        name: a folder or a hub id.
        lack: where only the hub's cache has it, what is wrong if that turns out not to hold all of it; else empty.
    """

    name: str
    lack: str = ""

    @property
    def is_folder(self) -> bool:
        return Path(self.name).is_dir()

    def has(self, file: str) -> bool:
        """Whether it has a file of this name."""
        return (Path(self.name) / file).is_file() if self.is_folder else fetched_file(self.name, file) is not None


def find_source(name_or_path: str | Path) -> Source:
    """Find a model or an adapter.

    Args:
        name_or_path: a folder, a hub id or ``shipped:NAME``.

    Raises:
        GradatimError: if there is none, or the hub does not give it and its cache does not hold it.
    """
    name = resolve_model(name_or_path) if isinstance(name_or_path, str) else str(name_or_path.expanduser())
    if Path(name).is_dir():
        return Source(name)
    if Path(name).is_file():
        raise GradatimError(f"{name!r} is a file; name the folder of the model")
    missing = f"there is no folder {name!r}{_near(name)}"
    if isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or not is_hub_id(name):
        shipped = ", ".join(SHIPPED + each for each in shipped_models())
        raise GradatimError(f"{missing}; name a folder made by save_pretrained, a hub id or a shipped model: {shipped}")
    sight = look(name)
    if not sight.lack:
        return Source(name)
    if cached_file(name, *_PARTS) is None:
        raise GradatimError(f"{missing}, and {sight.lack}; {sight.remedy}")
    return Source(name, f"the hub's cache holds only a part of {name!r}, and {sight.lack}; {sight.remedy}")


def load_from(source: Source, what: str, load: Callable[..., Loaded]) -> Loaded:
    """What ``load(name, local_files_only=...)`` makes of a source.

    Args:
        source: where it is loaded from.
        what: how an error calls it: ``the model``.
        load: another library's function.

    Raises:
        GradatimError: if it cannot; in one sentence.
    """
    try:
        return load(source.name, local_files_only=bool(source.lack))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if source.lack and isinstance(error, OSError):
            raise GradatimError(source.lack) from error
        raise GradatimError(f"cannot load {what} {source.name!r}: {first_line(error)}") from error


def base_of(source: Source) -> str | None:
    """The model that an adapter was made for; ``None`` for a model of its own.

    Raises:
        GradatimError: if the adapter does not say it.
    """
    if source.has("config.json") or not source.has(ADAPTER_CONFIG):
        return None
    base = adapter_config(source).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise GradatimError(
            f"the adapter {source.name!r} does not say what its base is; name that as the model, with adapter='FOLDER'",
            options=("adapter='FOLDER'",),
        )
    return base


def adapter_config(source: Source) -> dict[str, Any]:
    """The configuration of an adapter.

    Raises:
        GradatimError: if it is damaged.
    """
    file = Path(source.name) / ADAPTER_CONFIG if source.is_folder else fetched_file(source.name, ADAPTER_CONFIG)
    try:
        value = json.loads(Path(str(file)).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise GradatimError(f"{ADAPTER_CONFIG} of {source.name!r} is damaged; save the adapter again") from error
    if not isinstance(value, dict):
        raise GradatimError(f"{ADAPTER_CONFIG} of {source.name!r} is damaged; save the adapter again")
    return value


def of_base(adapter: Source, base: str, load: Callable[[str], Loaded]) -> Loaded:
    """What ``load`` makes of an adapter's base.

    Raises:
        GradatimError: as ``load`` does; it says whose base it is, and how to say where that lies.
    """
    try:
        return load(base)
    except GradatimError as error:
        raise GradatimError(
            f"{error}. It is the base of the adapter {adapter.name!r}; if it lies elsewhere, name it as the model, "
            "with adapter='FOLDER'",
            options=("adapter='FOLDER'",),
        ) from error


def refuse_adapter(name_or_path: str | Path) -> None:
    """Refuse what is an adapter where a model of its own is needed.

    Raises:
        GradatimError: if it is one, or is not there.
    """
    source = find_source(name_or_path)
    base = base_of(source)
    if base is not None:
        raise GradatimError(
            f"{source.name!r} is an adapter of {base!r} and no model of its own; merge it into its base "
            "(merge_and_unload of peft's models), save that and name its folder"
        )


def first_line(error: Exception) -> str:
    """What an error of another library says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _near(name: str) -> str:
    """Folders beside a missing one, and shipped models, whose names are near to its own."""
    parent, wanted = os.path.split(name.rstrip("/"))
    try:
        folders = [entry.name for entry in os.scandir(Path(parent or ".").expanduser()) if entry.is_dir()]
    except OSError:
        folders = []
    near = [os.path.join(parent, each) for each in difflib.get_close_matches(wanted, folders, n=2, cutoff=0.6)]
    near += [SHIPPED + each for each in difflib.get_close_matches(wanted, shipped_models(), n=1, cutoff=0.6)]
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
