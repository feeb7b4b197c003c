"""The folder of one run: its resolved recipe, its trees, its models, and what is finished."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from filelock import FileLock, Timeout

from gradatim.errors import GradatimError
from gradatim.recipes.comparison import Comparison
from gradatim.recipes.recipe import Recipe
from gradatim.run.stages import first_difference
from gradatim.store.files import file_error, remove_temporaries, remove_temporaries_of, write_json, write_text

_CONTENTS = (
    "recipe.yaml", "trees", "rounds.jsonl", "stages", "points", "checkpoints", "fine-tuned", "policy", "benchmarks",
    "plots", "superseded",
    "report.json", "report.md",
)  # fmt: skip
_UNKNOWN = "it does not say what it was made with"


class RunFolder:
    """A run folder, held by one process at a time.

    ``recipe.yaml`` is the recipe with every default written out; ``trees/*.jsonl`` are the trees, each stored the
    moment it was finished; ``rounds.jsonl`` says what each round of an online training did; ``stages/*.json`` say what
    is finished and how long it took; ``policy/`` and further folders of a model's name are the trained models,
    ``fine-tuned/`` the policy after its demonstrations; ``checkpoints/`` has what training needs to go on;
    ``benchmarks/scores.jsonl`` has what the scorer said of the steps of benchmarks; ``report.json``, ``report.md`` and
    ``plots/`` are the outcome.

    The same command on the same folder goes on where it was stopped. After a change of the recipe, every stage that
    does not depend on what was changed is used again; what is no longer of the recipe is set aside in ``superseded/``
    when its stage begins, and never deleted.

    Args:
        path: the folder; made if it is missing.
        recipe: what is to be run in it.
        fresh: delete an earlier run in the folder first.

    Raises:
        GradatimError: if the folder cannot be written, or another process uses it.
    """

    def __init__(self, path: str | os.PathLike[str], recipe: Recipe | Comparison, *, fresh: bool = False) -> None:
        self.path = Path(path)
        self._contents = (*_CONTENTS, *recipe.models)
        if self.path.is_file():
            raise GradatimError(f"{str(self.path)!r} is a file; choose another --output")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # its file stays: it is the lock that counts, and that ends with the process, however it ends
            self._lock = FileLock(self.path / ".lock", thread_local=False)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise GradatimError(
                f"another run is using {str(self.path)!r}; wait for it to end, or choose another --output"
            ) from None
        except OSError as error:
            raise file_error(self.path, error) from error
        try:
            self._clear_temporaries()
            if fresh:
                self._clear()
            resolved = recipe.model_dump(mode="json")
            write_text(
                self.path / "recipe.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, width=110)
            )
        except BaseException:
            self.close()
            raise

    def trees(self, name: str) -> Path:
        """The store of one set of trees."""
        return self.path / "trees" / f"{name}.jsonl"

    @property
    def journal(self) -> Path:
        """What each round of an online training did."""
        return self.path / "rounds.jsonl"

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

    def begin(self, stage: str, depends: Mapping[str, Any], outputs: Sequence[Path]) -> str | None:
        """Begin a stage, or go on with it; what was made of other options is set aside before.

        Args:
            stage: the stage.
            depends: the recipe's keys that its outcome depends on, with their values.
            outputs: the files and folders that it makes.

        Returns:
            Where an earlier outcome was set aside and why, in words; ``None`` if there is none or it is of use.
        """
        record, present = self.record(stage), [output for output in outputs if output.exists()]
        reason = first_difference(record["depends"], depends) if "depends" in record else _UNKNOWN
        if reason is None:
            return None
        if present:
            place = self._free_place(stage)
            for output in present:
                aside = place / output.relative_to(self.path)
                aside.parent.mkdir(parents=True, exist_ok=True)
                os.replace(output, aside)
            write_json(place / "stage.json", record)
            reason = f"{reason}; what was there is kept in {place.relative_to(self.path)}"
        write_json(self._record_path(stage), {"depends": dict(depends)})
        return reason if present else None

    def _free_place(self, stage: str) -> Path:
        """A folder for what is set aside that does not exist yet."""
        places = (self.path / "superseded" / f"{stage}-{number}" for number in count(1))
        return next(place for place in places if not place.exists())

    def update(self, stage: str, seconds: float, **values: Any) -> None:
        """Add to a stage's record, with the time of day; seconds add up over interruptions."""
        record = self.record(stage)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        so_far = round(record.get("seconds", 0.0) + seconds, 3)
        write_json(self._record_path(stage), {**record, **values, "seconds": so_far, "at": now})

    def close(self) -> None:
        """Let other processes use the folder."""
        self._lock.release()

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
        for name in self._contents:
            remove_temporaries_of(self.path / name)
            if (self.path / name).is_dir():
                remove_temporaries(self.path / name)

    def _clear(self) -> None:
        """Delete an earlier run, and nothing else: a folder that holds no run is left as it is."""
        if not (self.path / "recipe.yaml").is_file():
            return
        for name in reversed(self._contents):  # the recipe last: what is left of a run stays known as that run's
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
