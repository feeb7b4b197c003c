"""What each round of an online training did: a file of JSON lines that grows by one line a round."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gradatim.store.files import file_error, sync_folder


class Journal:
    """The rounds of an online training, a line each.

    A line is on the disk before the next round begins. One that a crash tore is left out; a round that is written again
    takes the place of its earlier line.

    Attributes:
        path: the file; it is made by the first line.
        rounds: what is known of each round, by its number.

    Raises:
        GradatimError: if the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rounds: dict[int, dict[str, Any]] = {}
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else []
        except OSError as error:
            raise file_error(path, error) from error
        self._torn = bool(lines) and lines[-1] != b""
        for line in lines:
            try:
                record = json.loads(line)
                self.rounds[int(record["round"])] = record
            except (ValueError, KeyError, TypeError):
                continue

    def append(self, record: dict[str, Any]) -> None:
        """Write what a round did, ``record["round"]``.

        Raises:
            GradatimError: if it cannot be written.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        is_new = not self.path.exists()
        try:
            with self.path.open("ab") as file:
                file.write(b"\n" + line if self._torn else line)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise file_error(self.path, error) from error
        self._torn = False
        self.rounds[record["round"]] = record

    def until(self, number: int) -> list[dict[str, Any]]:
        """The rounds up to a number, in their order."""
        return [self.rounds[each] for each in sorted(self.rounds) if each <= number]
