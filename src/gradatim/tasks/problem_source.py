"""Problems from records: a JSON-lines file, a folder of splits, or a data set on the hub.

Tasks whose problems are data, not generated, all read them here. A task says how one record becomes one problem; what
happens to bad ones and which are held out is the same for all.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from gradatim.errors import GradatimError
from gradatim.records import MalformedRecordError, RecordSource, check_local, open_file, open_hub
from gradatim.tree import Problem

if TYPE_CHECKING:
    from gradatim.tasks.from_records import RecordTask

SPLITS = ("train", "validation", "test")


class ProblemSource:
    """The problems of one source, by split.

    Args:
        task: how its records become problems, which of them are held out (``splits``, ``seed``,
            ``validation_fraction``), in which order they come (``shuffle``), and what becomes of malformed ones
            (``on_bad_line``). A file is all ``train``, whatever ``splits`` says. Held out is the nearest whole number
            of distinct texts (:meth:`~gradatim.tasks.from_records.RecordTask.held_out_by`), and at least one where
            something is left to train on. Which ones these are is the rank of a hash of the text, so it is the same for
            the same records in any order; the parts are disjoint.
        source: a data set's id on the hub (or its copy in a local folder), loaded with ``datasets.load_dataset``; or
            a folder with one ``.jsonl`` file a split; or one ``.jsonl`` file.
        config: the hub data set's configuration.

    Raises:
        GradatimError: if a local source does not exist or ``splits`` cannot be; :meth:`problems` raises it if the
            source cannot be read.
    """

    def __init__(self, task: RecordTask, source: str, config: str | None = None) -> None:
        check_local(source)
        self.source = source
        self._task = task
        self._config = config
        self._path = path = Path(source).expanduser()
        default = {"train": "train", "test": "test"}
        self._parts = {"train": path.stem} if path.is_file() else dict(task.splits or default)
        _check_splits(self._parts)
        self._held_out = [split for split in SPLITS[1:] if "train" in self._parts and split not in self._parts]
        self._read: dict[str, list[Problem]] = {}
        self._sides: dict[str, str] = {}

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``"train"``, ``"validation"`` or ``"test"``, always the same.

        Raises:
            GradatimError: if the split is unknown or empty, or the source is missing or malformed.
        """
        if split not in SPLITS:
            raise GradatimError(f"{self._task.name} has no split {split!r}; choose one of {', '.join(SPLITS)}")
        if count is not None and count < 0:
            raise GradatimError(f"the number of problems must be 0 or more, got {count}")
        if split not in self._parts and split not in self._held_out:
            raise GradatimError(
                f"{self.source!r} has no {split} split, since splits names {', '.join(self._parts)}; name it there"
            )
        problems = self._split(split)
        if not problems:
            raise GradatimError(
                f"the {split} split of {self.source!r} has no problems, since it is held out of {len(self._sides)} "
                f"distinct ones; give a source with at least {len(self._held_out) + 1}"
            )
        return problems[:count]

    def _split(self, split: str) -> list[Problem]:
        """All problems of a split; a part that several splits share is read once."""
        cut = split == "train" or split in self._held_out
        part = self._parts["train" if cut else split]
        if part not in self._read:
            self._read[part] = self._load(part)
            if cut:
                self._sides = self._divide({self._text(problem) for problem in self._read[part]})
        return [problem for problem in self._read[part] if not cut or self._sides[self._text(problem)] == split]

    def _divide(self, texts: Collection[str]) -> dict[str, str]:
        """The split to which each text of the source's ``train`` goes: those of the lowest places are held out."""
        sides = dict.fromkeys(texts, "train")
        ranked = iter(sorted(texts, key=lambda text: (self._place(text), text)))
        for split in self._held_out:
            count = max(1, round(self._task.validation_fraction * len(texts)))
            sides.update(dict.fromkeys(islice(ranked, min(count, (len(texts) - 1) // len(self._held_out))), split))
        return sides

    def _text(self, problem: Problem) -> str:
        """The text by which a problem is held out."""
        return self._task.held_out_by(problem).strip()

    def _place(self, text: str) -> float:
        """A number in [0, 1) that depends on the seed and the text alone."""
        digest = hashlib.sha256(f"{self._task.seed}:{text}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def _load(self, part: str) -> list[Problem]:
        problems = self._convert(part, self._open(part))
        if self._task.shuffle:
            # Another text than the one that holds problems out: its order would begin with those of the other splits.
            problems.sort(key=lambda problem: self._place(f"order:{problem.id}"))
        return problems

    def _open(self, part: str) -> RecordSource:
        if self._path.is_file():
            return open_file(self._path)
        if any((self._path / f"{name}.jsonl").is_file() for name in self._parts.values()):
            path = self._path / f"{part}.jsonl"
            if not path.is_file():
                raise GradatimError(f"the folder {self.source!r} has no {part}.jsonl")
            return open_file(path)
        name = str(self._path) if self._path.is_dir() else self.source
        return open_hub(name, part, self._config, as_source=True)

    def _convert(self, part: str, source: RecordSource) -> list[Problem]:
        """Turn the records of a source into problems."""
        problems: list[Problem] = []
        bad: dict[int, str] = {}
        for entry in source:
            try:
                problems.append(self._task.read(f"{self._task.name}/{part}/{entry.number}", entry.record))
            except MalformedRecordError as error:
                if self._task.on_bad_line == "refuse":
                    raise GradatimError(
                        f"{entry.where} {error}; mend it, or skip such records with on_bad_line='skip'",
                        options=("on_bad_line='skip'",),
                    ) from None
                bad[entry.number] = f"{entry.where} {error}"
        if bad:
            numbers = ", ".join(map(str, list(bad)[:20])) + (", ..." if len(bad) > 20 else "")
            warnings.warn(f"skipped {len(bad)} bad records of {source.name}: {numbers}", stacklevel=6)
        if not problems:
            reason = f"every record is malformed ({next(iter(bad.values()))})" if bad else "it is empty"
            raise GradatimError(f"{source.name} has no problems: {reason}")
        return problems


def _check_splits(parts: Mapping[str, str]) -> None:
    for split in parts:
        if split not in SPLITS:
            raise GradatimError(f"splits cannot name {split!r}; its keys are {', '.join(SPLITS)}")
    if len(set(parts.values())) < len(parts):
        raise GradatimError("splits gives two splits the same records; leave one out to have it held out of train")
