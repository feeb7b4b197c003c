"""Stages that are done once: what a stage made stays on disk, and a run that was interrupted goes on after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.real_text.progress import say
from gradatim.errors import GradatimError
from gradatim.store.files import write_json

_MARK = "done.json"


def stage(folder: Path, settings: Mapping[str, Any], make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The result of ``make(folder)``, from disk where it was made before.

    Args:
        folder: the stage's own folder.
        settings: what the result depends on, as JSON values.
        make: writes what it likes into the folder and returns what is to be remembered, as JSON values.

    Raises:
        GradatimError: if the folder holds a result of other settings.
    """
    mark = folder / _MARK
    name = f"{folder.parent.name}/{folder.name}"
    wanted = json.loads(json.dumps(settings))
    if mark.is_file():
        record = json.loads(mark.read_text(encoding="utf-8"))
        if record["settings"] != wanted:
            raise GradatimError(f"{folder} holds a stage with other settings; give another --output or delete it")
        say(f"{name}: done before")
        result: dict[str, Any] = record["result"]
        return result
    say(f"{name}: begins")
    folder.mkdir(parents=True, exist_ok=True)
    result = json.loads(json.dumps(make(folder)))
    write_json(mark, {"settings": wanted, "result": result})
    say(f"{name}: done")
    return result
