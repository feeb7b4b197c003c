"""One training and where its model goes: begun, stopped and taken up again, finished whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from gradatim.errors import GradatimError
from gradatim.run.stages import first_difference
from gradatim.store.files import file_error, write_json

RECORD_FILE = "training.json"
"""In a trained model's folder: how it was trained and what was measured; beside checkpoints: what is being trained."""


class TrainingFolder:
    """The folder of a model to be trained, and beside it, until it is there, ``FOLDER.training`` with the checkpoints.

    Args:
        output: where the model goes; what lies there and was not made by such a training is never touched.
        settings: what the model depends on. A training that was stopped goes on only with the same ones.
        fresh: delete an earlier training of this folder first.

    Raises:
        GradatimError: if the folder holds something else or cannot be written, a training with other settings was
            begun or finished there, or another process is at it.
    """

    def __init__(self, output: str | os.PathLike[str], settings: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.output = Path(output)
        self.work = self.output.with_name(f"{self.output.name}.training")
        self.settings = dict(settings)
        self._check_place()
        self._lock = FileLock(self.work / ".lock", thread_local=False)
        try:
            self._take_lock()
        except Timeout:
            raise GradatimError(
                f"another training is using {str(self.output)!r}; wait for it to end, or choose another output",
                options=("output",),
            ) from None
        except OSError as error:
            raise file_error(self.output, error) from error
        try:
            if fresh:
                self._clear()
            self._claim()
        except BaseException:
            self.close()
            raise

    @property
    def checkpoints(self) -> Path:
        return self.work / "checkpoints"

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from."""
        return self.checkpoints.is_dir()

    def finished(self) -> dict[str, Any] | None:
        """The record of the finished model, if it is there."""
        return _read(self.output / RECORD_FILE)

    def check_data(self, digest: str) -> None:
        """Refuse to go on, or to call a model finished, with other data than it was begun with.

        Raises:
            GradatimError: if so.
        """
        known = (_read(self.output / RECORD_FILE) or _read(self.work / RECORD_FILE) or {}).get("data")
        if known is None:
            write_json(self.work / RECORD_FILE, {"settings": self.settings, "data": digest})
        elif known != digest:
            raise GradatimError(
                f"the rows are not those that the training of {str(self.output)!r} began with; start anew with "
                "fresh, or choose another output",
                options=("fresh", "output"),
            )

    def write_record(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Write into the model's folder, before it appears, how it was trained: the settings and ``record``."""
        write_json(folder / RECORD_FILE, {"settings": self.settings, **record})

    def close(self) -> None:
        """Let other processes use the folder; nothing stays of a training that never began."""
        # removed while it is held: what another training makes there afterwards is not ours to remove
        if not self.begun or self.finished() is not None:
            shutil.rmtree(self.work, ignore_errors=True)
        self._lock.release()

    def __enter__(self) -> TrainingFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _take_lock(self) -> None:
        while True:
            self.work.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(blocking=False)
            except FileNotFoundError:
                continue  # another training ended just now and took the folder along
            return

    def _check_place(self) -> None:
        if self.output.exists() and not self.output.is_dir():
            raise GradatimError(f"{str(self.output)!r} is a file; choose another output", options=("output",))
        if self.output.is_dir() and any(self.output.iterdir()) and self.finished() is None:
            raise GradatimError(
                f"{str(self.output)!r} holds something else than a model that was trained so; choose another output",
                options=("output",),
            )

    def _clear(self) -> None:
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        (self.work / RECORD_FILE).unlink(missing_ok=True)
        if self.finished() is not None:
            shutil.rmtree(self.output)

    def _claim(self) -> None:
        """See that what was begun or finished here is what is asked for."""
        record = self.finished() or (_read(self.work / RECORD_FILE) if self.begun else None)
        if record is None:
            shutil.rmtree(self.checkpoints, ignore_errors=True)  # of a training of which nothing is known
            (self.work / RECORD_FILE).unlink(missing_ok=True)
            return
        different = first_difference(record["settings"], json.loads(json.dumps(self.settings)))
        if different is not None:
            raise GradatimError(
                f"the training of {str(self.output)!r} was begun with other options ({different}); give the same, "
                "start anew with fresh, or choose another output",
                options=("fresh", "output"),
            )


def _read(path: Path) -> dict[str, Any] | None:
    """A record, or ``None`` where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("settings"), dict) else None
