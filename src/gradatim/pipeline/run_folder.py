"""The folder of one run: its resolved recipe, its trees, its models, and what is finished."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from gradatim.errors import GradatimError
from gradatim.recipes.schema import Recipe
from gradatim.store.files import file_error, remove_temporaries, remove_temporaries_of, write_json, write_text

_CONTENTS = (
    "recipe.yaml",
    "trees",
    "stages",
    "checkpoints",
    "fine-tuned",
    "scorer",
    "policy",
    "plots",
    "report.json",
    "report.md",
)
_MISSING = object()


class RunFolder:
    """A run folder, held by one process at a time.

    ``recipe.yaml`` is the recipe with every default written out; ``trees/*.jsonl`` are the trees, each stored the
    moment it was finished; ``stages/*.json`` say what is finished and how long it took; ``scorer/``, ``policy/``
    and ``fine-tuned/`` are the trained models, ``checkpoints/`` what training needs to go on; ``report.json``,
    ``report.md`` and ``plots/`` are the outcome. The same command on the same folder goes on where it was stopped.

    Args:
        path: the folder; made if it is missing.
        recipe: what is to be run in it.
        fresh: delete an earlier run in the folder first.

    Raises:
        GradatimError: if the folder has a run of another recipe, or another process uses it.
    """

    def __init__(self, path: str | os.PathLike[str], recipe: Recipe, *, fresh: bool = False) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise file_error(self.path, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._clear_temporaries()
            if fresh:
                self._clear()
            self._claim(recipe)
        except BlockingIOError:
            self.close()
            raise GradatimError(
                f"another run is using {str(self.path)!r}; wait for it to end, or choose another --output"
            ) from None
        except BaseException:
            self.close()
            raise

    def trees(self, name: str) -> Path:
        """The store of one set of trees."""
        return self.path / "trees" / f"{name}.jsonl"

    def plot(self, name: str) -> Path:
        return self.path / "plots" / name

    def record(self, stage: str) -> dict[str, Any]:
        """What is known of a stage; empty if it never ran."""
        try:
            value: dict[str, Any] = json.loads(self._record_path(stage).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise file_error(self._record_path(stage), error) from error
        return value

    def update(self, stage: str, seconds: float, **values: Any) -> None:
        """Add to a stage's record, with the time of day; seconds add up over interruptions."""
        record = self.record(stage)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        so_far = round(record.get("seconds", 0.0) + seconds, 3)
        write_json(self._record_path(stage), {**record, **values, "seconds": so_far, "at": now})

    def records(self) -> dict[str, dict[str, Any]]:
        """The records of all stages, by name."""
        return {path.stem: self.record(path.stem) for path in sorted((self.path / "stages").glob("*.json"))}

    def close(self) -> None:
        """Let other processes use the folder."""
        os.close(self._lock)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _record_path(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"

    def _clear_temporaries(self) -> None:
        """Remove what a run that was killed here was just writing; nobody else writes while the lock is held."""
        for name in _CONTENTS:
            remove_temporaries_of(self.path / name)
            if (self.path / name).is_dir():
                remove_temporaries(self.path / name)

    def _clear(self) -> None:
        """Delete an earlier run, and nothing else: a folder that holds no run is left as it is."""
        if not (self.path / "recipe.yaml").is_file():
            return
        for name in reversed(_CONTENTS):  # the recipe last: what is left of a run stays known as that run's
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def _claim(self, recipe: Recipe) -> None:
        """Write the recipe, or see that the one that is there says the same."""
        path = self.path / "recipe.yaml"
        resolved = recipe.model_dump(mode="json")
        if not path.is_file():
            write_text(path, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, width=110))
            return
        try:
            earlier = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            earlier = None
        different = "everything" if not isinstance(earlier, dict) else first_difference(earlier, resolved)
        if different is not None:
            raise GradatimError(
                f"{str(self.path)!r} holds a run of a different recipe ({different}); choose another --output, or "
                "delete that run with --fresh"
            )


def first_difference(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first key in which two recipes differ, with both values; the summary does not count."""
    before, after = dict(_flat(earlier)), dict(_flat(now))
    for key in [*after, *before]:
        left, right = before.get(key, _MISSING), after.get(key, _MISSING)
        if key != "summary" and left != right:
            return f"{key} was {_shown(left)} and is now {_shown(right)}"
    return None


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _shown(value: Any) -> str:
    return "not set" if value is _MISSING or value is None else str(value)
