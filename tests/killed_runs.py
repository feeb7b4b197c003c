"""Runs of a small recipe that are killed in the middle of what they write, and what is wrong with them in the end.

Each attempt is a fork of this process, in which everything is imported already. In it every operation on the file
system that touches the run folder is counted: opening to write, renaming, making and removing folders, appending,
syncing, and the writing of tensors, which safetensors and torch do outside of Python. At one of them the process kills
itself, after it wrote one half of what it was to write.

As a program, ``python tests/killed_runs.py FOLDER`` kills one run in each of :data:`WRITERS`, and an online one in each
of :data:`ONLINE_WRITERS`, and prints what happened as JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from rich.console import Console

from gradatim.recipes import Recipe
from gradatim.run import Progress, run_recipe
from gradatim.training.checkpoints import checkpoint_fault
from small_runs import small_content, small_recipe

Point = Callable[[int, str, str], bool]
"""Whether to kill at an operation, by its number from 1, its kind, and the path in the run folder."""

WRITERS = (
    ("sync", ".recipe"),
    ("append", "trees/round-1.jsonl"),
    ("rename", "stages/.models"),
    ("tensors", "checkpoints/scorer-1/training/.best"),
    ("tensors", "checkpoints/scorer-1/training/.checkpoint.partial/checkpoint-2/model"),
    ("tensors", "checkpoints/scorer-1/training/.checkpoint.partial/checkpoint-4/optimizer"),
    ("open", "checkpoints/scorer-1/training/.checkpoint.partial/checkpoint-6/trainer_state"),
    ("remove", "checkpoints/scorer-1/training/.checkpoint-2.removed"),
    ("open", ".scorer.partial/.step_scoring"),
    ("sync", "stages/.scorer-1"),
    ("rename", "checkpoints/policy-1/training/.checkpoint.partial"),
    ("tensors", ".policy.partial/model"),
    ("append", "trees/evaluate-base.jsonl"),
    ("rename", "stages/.evaluate-base."),
    ("open", "plots/"),
    ("rename", ".report"),
)
"""A kill inside each of these, in the order in which a run comes to them."""

ONLINE_WRITERS = (
    ("open", "rounds.jsonl"),
    ("append", "trees/rounds.jsonl"),
    ("tensors", "checkpoints/online/.round-2.partial/policy.optimizer"),
    ("sync", "rounds.jsonl"),
    ("remove", "checkpoints/online/.round-2.removed"),
    ("tensors", ".policy.partial/model"),
)
"""The same in an online run."""


def tiny_recipe() -> Recipe:
    """Everything that writes: both trainings with checkpoints and measurements, evaluation, search, plots."""
    content = small_content()
    often = {"tokens_per_batch": 64, "save_every": 2, "evaluate_every": 1, "log_every": 3}
    return small_recipe(
        problems={"train": 4, "validation": 2, "test": 2},
        search={"name": "grow", "branching": [4, 2, 1]},
        trees={"in_flight": 1},
        learn=[each | {"training": each["training"] | often} for each in content["learn"]],
        evaluation={**content["evaluation"], "samples": 2, "pass_at": [1, 2], "best_of": [2], "majority": [2]},
    )


def online_recipe() -> Recipe:
    """Rounds with checkpoints, evaluations, trees that are learned from again and a way back to the best state."""
    learn = {"objective": {"name": "step_dpo", "nll": 0.2}, "data": ["sibling_pairs"], "reference": "initial"}
    training = {"learning_rate": 1.0e-3, "tokens_per_batch": 256, "epochs": 2, "warmup_ratio": 0}
    return small_recipe(
        judge=None,
        objective=None,
        problems={"train": 6, "validation": 3, "test": 2},
        search={"name": "grow", "branching": [4, 2, 1]},
        rounds=6,
        online={
            "problems": 2, "updates": 2, "reuse": 1, "evaluate_every": 1, "save_every": 2, "roll_back": 0.01,
            "keep": "last",
        },
        learn=[learn | {"training": training}],
        evaluation={"samples": 2, "pass_at": [1], "best_of": [1], "majority": [2], "greedy": False, "in_flight": 1},
    )  # fmt: skip


def attempt(recipe: Recipe, folder: Path, point: Point | None = None, seconds: float | None = None) -> dict[str, Any]:
    """Run ``recipe`` in a fork of this process, killed at ``point``, or after ``seconds``.

    Returns:
        ``status``, the exit code or minus the signal's number; ``operations``, how many were begun; ``error``, what
        was printed where the run ended in an error.
    """
    log = folder.parent / f"{folder.name}.log"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            counter = _Counter(folder, log, point)
            counter.install()
            if seconds is not None:
                signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
                signal.setitimer(signal.ITIMER_REAL, seconds)
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            warnings.simplefilter("ignore")
            run_recipe(recipe, folder, progress=Progress(Console(file=io.StringIO())))
            counter.note()
            code = 0
        except BaseException:
            log.with_suffix(".error").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    error = log.with_suffix(".error")
    return {
        "status": os.waitstatus_to_exitcode(status),
        "operations": int(log.read_text() or 0) if log.exists() else 0,
        "error": error.read_text() if error.exists() else "",
    }


class _Counter:
    """Counts operations on the files of a folder, and kills the process at one of them."""

    def __init__(self, folder: Path, log: Path, point: Point | None) -> None:
        self.folder = f"{folder.resolve()}{os.sep}"
        self.point = point
        self.count = 0
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.busy = False

    def install(self) -> None:
        sys.addaudithook(self._audit)
        pwrite, fsync, save = os.pwrite, os.fsync, torch.save
        serialize: Any = getattr(safetensors.torch, "serialize_file")  # noqa: B009 (it is not exported)

        def half_pwrite(descriptor: int, data: Any, offset: int) -> int:
            self._operation("append", _path_of(descriptor), lambda: pwrite(descriptor, data[: len(data) // 2], offset))
            return pwrite(descriptor, data, offset)

        def half_fsync(descriptor: int) -> None:
            self._operation("sync", _path_of(descriptor))
            fsync(descriptor)

        def half_serialize(tensors: Any, path: Any, metadata: Any = None) -> None:
            self._operation("tensors", path, lambda: _half(path, lambda: serialize(tensors, path, metadata=metadata)))
            serialize(tensors, path, metadata=metadata)

        def half_save(value: Any, path: Any, *arguments: Any, **options: Any) -> None:
            self._operation("tensors", path, lambda: _half(path, lambda: save(value, path, *arguments, **options)))
            save(value, path, *arguments, **options)

        for owner, name, function in (
            (os, "pwrite", half_pwrite),
            (os, "fsync", half_fsync),
            (torch, "save", half_save),
            (safetensors.torch, "serialize_file", half_serialize),
        ):
            setattr(owner, name, function)

    def note(self) -> None:
        os.pwrite(self.log, str(self.count).encode(), 0)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR):
                self._operation("open", path)
        elif event in {"os.rename", "os.link"}:
            self._operation("rename", arguments[0])
        elif event in {"os.mkdir", "os.truncate"}:
            self._operation(event.removeprefix("os."), arguments[0])
        elif event in {"os.remove", "os.rmdir", "shutil.rmtree"}:
            self._operation("remove", arguments[0])

    def _operation(self, kind: str, path: Any, half: Callable[[], Any] = lambda: None) -> None:
        if self.busy or not isinstance(path, str | os.PathLike):
            return
        name = os.path.abspath(os.fspath(path))
        if not name.startswith(self.folder) or name.endswith(".lock"):
            return
        self.count += 1
        if self.point is not None and self.point(self.count, kind, name.removeprefix(self.folder)):
            self.busy = True
            half()
            self.note()
            os.kill(os.getpid(), signal.SIGKILL)


def _half(path: Any, write: Callable[[], None]) -> None:
    write()
    os.truncate(path, os.stat(path).st_size // 2)


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def outcome(folder: Path) -> dict[str, Any]:
    """What a run has made, without times: equal for equal runs."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    stages = {
        name: {key: value for key, value in record.items() if key not in {"at", "seconds"}}
        for name, record in report.pop("stages").items()
    }
    return {
        "figures": {
            key: report[key] for key in ("base", "step_dpo", "search", "prm", "labels", "comparison", "online")
        },
        "rounds": _rounds(folder / "rounds.jsonl"),
        "stages": stages,
        "trees": {path.name: sorted(path.read_text().splitlines()) for path in (folder / "trees").iterdir()},
        "files": sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if "checkpoints" not in path.parts
        ),
        "weights": {path.parent.name: _digest(path) for path in folder.glob("*/model.safetensors")},
    }


def _rounds(journal: Path) -> list[dict[str, Any]]:
    """What an online run says of its rounds, without times."""
    if not journal.exists():
        return []
    rounds = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    for each in rounds:
        each["evaluation"].pop("seconds")
    return [{key: value for key, value in each.items() if key not in {"at", "seconds"}} for each in rounds]


def faults(folder: Path, expected: dict[str, Any]) -> list[str]:
    """In what a finished run differs from the undisturbed one, and what it holds that is torn or left over."""
    found = outcome(folder)
    differing = (key for key in expected if found[key] != expected[key])
    wrong = [f"{key} differ: {_difference(found[key], expected[key])}" for key in differing]
    for name, lines in found["trees"].items():
        if len(lines) != len(expected["trees"].get(name, lines)):
            wrong.append(f"doubled: {name} has {len(lines)} trees")
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") and path.name != ".lock":
            wrong.append(f"left over: {path.relative_to(folder)}")
        elif path.name.startswith("checkpoint-") and (fault := checkpoint_fault(path)):
            wrong.append(f"torn: {path.relative_to(folder)}, {fault}")
        elif path.suffix == ".png" and not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
            wrong.append(f"torn: {path.relative_to(folder)}")
    return wrong


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        return "; ".join(
            f"{key}: {_difference(found.get(key), expected.get(key))}"
            for key in sorted({*found, *expected})
            if found.get(key) != expected.get(key)
        )
    return f"{str(found)[:200]} instead of {str(expected)[:200]}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def killed_in_every_writer(place: Path, recipe: Recipe, writers: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A run that is killed in each of ``writers`` in turn, each time going on in the same folder."""
    whole = attempt(recipe, place / "whole")
    assert whole["status"] == 0, whole["error"]
    folder, missed = place / "killed", []
    for kind, name in writers:
        made = attempt(recipe, folder, _at(kind, name))
        if made["status"] == 0:
            missed.append(f"{kind} {name}")
        elif made["status"] != -signal.SIGKILL:
            return {"stuck": made["error"], "after": f"{kind} {name}"}
    last = attempt(recipe, folder)
    if last["status"] != 0:
        return {"stuck": last["error"], "after": "all kills"}
    return {"operations": whole["operations"], "missed": missed, "faults": faults(folder, outcome(place / "whole"))}


def _at(kind: str, name: str) -> Point:
    return lambda count, what, path: what == kind and path.startswith(name)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    for kind in ("run", "online"):
        (target / kind).mkdir(parents=True)
    killed = {
        "run": killed_in_every_writer(target / "run", tiny_recipe(), WRITERS),
        "online": killed_in_every_writer(target / "online", online_recipe(), ONLINE_WRITERS),
    }
    print(json.dumps(killed, indent=1))
