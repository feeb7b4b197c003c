"""Problems from records: a JSON-lines file, a folder of splits, or a data set on the hub.

Tasks whose problems are data, not generated, all read them here. A task says how one record becomes one problem; what
happens to bad ones and which are held out is the same for all.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import Literal

from gradatim.errors import GradatimError
from gradatim.records import MalformedRecordError, Record, RecordSource, check_local, open_file, open_hub
from gradatim.tree import Problem

SPLITS = ("train", "validation", "test")


class ProblemSource:
    """The problems of one source, by split.

    Args:
        source: a data set's id on the hub (or its copy in a local folder), loaded with ``datasets.load_dataset``; or
            a folder with one ``.jsonl`` file a split; or one ``.jsonl`` file.
        problem: makes a problem of its id and its record; raises :class:`gradatim.records.MalformedRecordError` where
            it cannot.
        key: the text by which problems are held out, usually the question: equal texts are never on two sides.
        task: what ids and errors call the task.
        config: the hub data set's configuration.
        splits: the source's own name for each split that it has, such as ``{"train": "train", "test": "dev"}``.
            ``validation`` and ``test`` are held out of ``train`` where the source has none of its own. Without it, a
            file is all ``train``, and anything else has ``train`` and ``test``.
        seed: chooses which problems are held out, and the order of shuffled ones.
        validation_fraction: share of the distinct texts of ``train`` that is held out as ``validation``, and the same
            share again as ``test`` where the source has none: the nearest whole number of them, and at least one each
            where something is left to train on. Which ones these are is the rank of a hash of ``key``, so it is the
            same for the same records in any order; the parts are disjoint.
        shuffle: whether problems come in an order of their own instead of the source's. For sources sorted by subject
            or difficulty, so that the first problems are a fair sample.
        on_bad_line: whether a malformed line or record is refused with its line number, or skipped with a warning
            that names the lines.

    Raises:
        GradatimError: if a local source does not exist or an argument is out of its range; :meth:`problems` raises it
            if the source cannot be read.
    """

    def __init__(
        self,
        source: str,
        problem: Callable[[str, Record], Problem],
        *,
        key: Callable[[Problem], str],
        task: str,
        config: str | None = None,
        splits: Mapping[str, str] | None = None,
        seed: int = 0,
        validation_fraction: float = 0.05,
        shuffle: bool = False,
        on_bad_line: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        if not 0 < validation_fraction < 0.5:
            raise GradatimError(f"validation_fraction must be above 0 and below 0.5, got {validation_fraction}")
        if on_bad_line not in ("refuse", "skip"):
            raise GradatimError(f"on_bad_line must be 'refuse' or 'skip', got {on_bad_line!r}")
        check_local(source)
        path = Path(source).expanduser()
        self.source = source
        self._path = path
        self._problem = problem
        self._key = key
        self._task = task
        self._config = config
        self._seed = seed
        self._validation_fraction = validation_fraction
        self._shuffle = shuffle
        self._on_bad_line = on_bad_line
        self._parts = {"train": path.stem} if path.is_file() else dict(splits or {"train": "train", "test": "test"})
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
            raise GradatimError(f"{self._task} has no split {split!r}; choose one of {', '.join(SPLITS)}")
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
            count = max(1, round(self._validation_fraction * len(texts)))
            sides.update(dict.fromkeys(islice(ranked, min(count, (len(texts) - 1) // len(self._held_out))), split))
        return sides

    def _text(self, problem: Problem) -> str:
        """The text by which a problem is held out."""
        return self._key(problem).strip()

    def _place(self, text: str) -> float:
        """A number in [0, 1) that depends on the seed and the text alone."""
        digest = hashlib.sha256(f"{self._seed}:{text}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def _load(self, part: str) -> list[Problem]:
        problems = self._convert(part, self._open(part))
        if self._shuffle:
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
                problems.append(self._problem(f"{self._task}/{part}/{entry.number}", entry.record))
            except MalformedRecordError as error:
                if self._on_bad_line == "refuse":
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
