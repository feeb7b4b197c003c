"""Step scores for the records of a benchmark, from any scorer, kept on the disk as they come."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradatim.errors import GradatimError
from gradatim.evaluation.step_records import RecordTree, StepRecord, record_trees
from gradatim.scorers.base import Scorer
from gradatim.search.many import search_many
from gradatim.store.files import file_error, sync_folder
from gradatim.tree import Node, Tree

FORMAT_VERSION = 2
_MODEL_FILES = {".safetensors", ".bin", ".json", ".model"}


async def score_records(
    records: Sequence[StepRecord],
    scorer: Scorer,
    *,
    in_flight: int = 32,
    scores: ScoreFile | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[list[float] | None]:
    """Score every step of every record.

    Args:
        records: those of one problem are scored together, as one tree (see
            :func:`gradatim.evaluation.step_records.record_trees`).
        scorer: any scorer of text steps.
        in_flight: problems that are scored at the same time.
        scores: where scores are kept as they come. Records that have theirs there already are not scored again.
        progress: called with the number of records that have just got their scores.

    Returns:
        For each record the scores of its steps, in order; ``None`` where the scorer left a step unscored, since the
        solution is too long for it, or what a judge said of it cannot be read.

    Raises:
        GradatimError: if the scorer leaves every record unscored or gives a number that is none; what was scored
            before is kept.
    """
    found: list[list[float] | None] = [None if scores is None else scores.get(record) for record in records]
    known = sum(each is not None for each in found)
    if known and progress is not None:
        progress(known)
    running: dict[Tree, RecordTree] = {}

    def trees() -> Iterator[Tree]:
        for each in record_trees((i, record) for i, record in enumerate(records) if found[i] is None):
            running[each.tree] = each
            yield each.tree

    def keep(tree: Tree) -> None:
        new = {index: _path_scores(nodes, scorer.name, records[index]) for index, nodes in running.pop(tree).paths}
        if scores is not None:
            scores.append({records[index]: values for index, values in new.items() if values is not None})
        for index, values in new.items():
            found[index] = values
        if (release := getattr(scorer, "release", None)) is not None:
            release(tree)
        if progress is not None:
            progress(len(new))

    await search_many(trees(), lambda tree: scorer.score(tree.nodes[1:]), in_flight, keep)
    if records and all(each is None for each in found):
        raise GradatimError(
            f"the scorer {scorer.name!r} left a step of every record without a score; are they too long for its "
            "model, or can its judgements not be read?"
        )
    return found


def _path_scores(nodes: Sequence[Node], name: str, record: StepRecord) -> list[float] | None:
    for number, node in enumerate(nodes, 1):
        score = node.scores.get(name)
        if score is None:
            return None
        if not math.isfinite(score):
            raise GradatimError(
                f"the scorer {name!r} gave step {number} of record {record.id!r} a score that is not a number; "
                "it has diverged, or its number format is too narrow: try dtype='float32'",
                options=("dtype='float32'",),
            )
    return [node.scores[name] for node in nodes]


class ScoreFile:
    """Scores on the disk: JSON lines, the first of which names the scorer.

    A score is found by what the scorer read, so the file stays of use when a benchmark is cut, extended or put in
    another order. An append returns once it is on the disk; a line that a crash tore is left out and written over.

    Args:
        path: the file; it is made by the first append.
        scorer: names the scorer, e.g. by the folder or hub id of its model.
        model_digest: stands for what the model holds (see :func:`model_digest`), so that a model that was trained anew
            at the same place is not taken for the old one.
        settings: what else the scores depend on, such as the number format.

    Raises:
        GradatimError: if the file cannot be read, is none of this kind, or holds scores of another scorer, of another
            state of it, or at other settings.
    """

    def __init__(
        self, path: str | os.PathLike[str], scorer: str, *, model_digest: str = "", settings: Mapping[str, str] = {}
    ) -> None:
        self.path = Path(path)
        self._header: dict[str, Any] = {
            "format": FORMAT_VERSION, "scorer": scorer, "model_digest": model_digest, "settings": dict(settings),
        }  # fmt: skip
        self._scores: dict[str, list[float]] = {}
        self._end = 0  # bytes that are whole lines
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise file_error(self.path, error) from error
        self._end = content.rfind(b"\n") + 1
        for number, line in enumerate(content[: self._end].splitlines()):
            self._read(number, line)

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, record: StepRecord) -> list[float] | None:
        """The scores of a record's steps, if they are known."""
        return self._scores.get(record.digest)

    def append(self, scores: Mapping[StepRecord, Sequence[float]]) -> None:
        """Write the scores of some records; when this returns, they are on the disk.

        Raises:
            GradatimError: if the disk is full or the file cannot be written.
        """
        lines = [] if self._end else [self._header]
        lines += [
            {"id": record.id, "digest": record.digest, "scores": list(values)} for record, values in scores.items()
        ]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not self.path.exists()
            with self.path.open("xb" if is_new else "r+b") as file:
                file.truncate(self._end)
                file.seek(self._end)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise file_error(self.path, error) from error
        self._end += len(content)
        self._scores.update({record.digest: list(values) for record, values in scores.items()})

    def _read(self, number: int, line: bytes) -> None:
        try:
            value = json.loads(line)
            if number == 0:
                self._check_header(value)
            else:
                self._scores[value["digest"]] = [float(score) for score in value["scores"]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise GradatimError(
                f"line {number + 1} of {str(self.path)!r} holds no step scores; delete the file, or choose another "
                "output folder"
            ) from error

    def _check_header(self, header: Mapping[str, Any]) -> None:
        if header == self._header:
            return
        scorer, path = self._header["scorer"], str(self.path)
        if header["format"] != FORMAT_VERSION:
            reason = "was written by another version of this program"
        elif header["scorer"] != scorer:
            reason = f"holds the scores of {header['scorer']!r}, not of {scorer!r}"
        elif header["model_digest"] != self._header["model_digest"]:
            reason = f"holds scores that {scorer!r} gave before its files changed"
        else:
            found, wanted = _listed(header["settings"]), _listed(self._header["settings"])
            reason = f"holds scores of {scorer!r} with {found}, not {wanted}"
        raise GradatimError(f"{path!r} {reason}; delete it, or choose another output folder")


def model_digest(folder: str | os.PathLike[str]) -> str:
    """Changes whenever a model in a local folder is saved again: a digest of its files' names, sizes and times.

    Files of text are left out. Empty for what is no local folder, such as a hub id.
    """
    files = sorted(file for file in Path(folder).glob("*") if file.suffix in _MODEL_FILES)
    stated = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stated).encode()).hexdigest()[:16] if stated else ""


def _listed(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "no settings"
