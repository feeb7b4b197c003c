"""Checkpoints of a training: written whole or not at all, and passed over where they cannot be read."""

from __future__ import annotations

import json
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import Trainer, TrainerState

from gradatim.store.files import remove_folder, sync_folder, sync_tree

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_PARTIAL = ".checkpoint.partial"
_STATE = "trainer_state.json"
_SUMS = "CheckpointTrainer"  # among the states of callbacks in a checkpoint
# What transformers cannot go on without, or would go on without in silence, from another state than it stopped in.
_NEEDED = {
    "weights": (
        "*model*.safetensors",
        "*model*.bin",
        "*/adapter_model.safetensors",
        "pytorch_model_fsdp_*",
        "global_step*",
    ),
    "optimizer": ("optimizer.pt", "optimizer.bin", "optimizer_*", "rank*optimizer.pt", "global_step*"),
    "scheduler": ("scheduler.pt",),
    "random state": ("rng_state*.pth",),
}


class CheckpointTrainer(Trainer):
    """A :class:`transformers.Trainer` whose checkpoints are whole or absent.

    A checkpoint is written beside the place where it belongs, put on the disk, and renamed; an older one is removed
    likewise. Whatever stops the process, no folder ``checkpoint-N`` is half of one. Training that goes on from one has
    the same history in the end as training that was never stopped, and a checkpoint of the last update is its end.
    """

    _tr_loss: torch.Tensor
    _globalstep_last_logged: int
    _place: Path | None = None  # where the checkpoint that is just being written goes

    def _get_output_dir(self, trial: Any) -> str:
        folder: str = super()._get_output_dir(trial)
        return folder if self._place is None else str(self._place)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial))
        partial = folder / _PARTIAL
        name = f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.state.stateful_callbacks[_SUMS] = self._sums()
        self._place = partial
        try:
            super()._save_checkpoint(model, trial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the space
            raise
        finally:
            self._place = None
            self.state.stateful_callbacks.pop(_SUMS)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._put_in_place(folder, name)
        self.accelerator.wait_for_everyone()

    def _run_epoch(self, *args: Any, **options: Any) -> None:
        """One pass over the data; none if training has ended, as the base class would make one more update."""
        if (sums := self.state.stateful_callbacks.pop(_SUMS, None)) is not None:  # training goes on
            self._take_sums(sums)
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **options)

    def _sums(self) -> dict[str, Any]:
        """What was summed up since the last entry of the history, for the checkpoint."""
        mean = self.accelerator.gather(self._tr_loss).mean()  # over processes, as it will be logged
        return {"loss": float(mean), "logged": self._globalstep_last_logged}

    def _take_sums(self, sums: Mapping[str, Any]) -> None:
        self._tr_loss = self._tr_loss.new_tensor(sums["loss"])
        self._globalstep_last_logged = sums["logged"]

    def _put_in_place(self, folder: Path, name: str) -> None:
        new, place = folder / _PARTIAL / name, folder / name
        if self.state.best_model_checkpoint == str(new):
            self.state.best_model_checkpoint = str(place)
            self.state.save_to_json(str(new / _STATE))
        sync_tree(new)
        if place.exists():
            remove_folder(place)
        new.rename(place)
        sync_folder(folder)
        shutil.rmtree(folder / _PARTIAL, ignore_errors=True)
        if (limit := self.args.save_total_limit) is not None and limit > 0:
            kept = {str(place), self.state.best_model_checkpoint}
            spare = [each for each in checkpoints(folder) if str(each) not in kept]
            for old in spare[: max(0, len(spare) + len(kept - {None}) - limit)]:
                remove_folder(old)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, by the updates made, fewest first."""
    found = [path for path in folder.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def last_checkpoint(folder: Path, fault: Callable[[TrainerState], str | None] = lambda state: None) -> Path | None:
    """The last checkpoint in ``folder`` that training can go on from, or ``None``.

    Those after it are passed over with a warning that says what is wrong with them, and deleted. So is what a killed
    process left half-written.

    Args:
        folder: where they were written.
        fault: why training cannot go on from a checkpoint of this state though it can be read, or ``None``.
    """
    for path in (folder / _PARTIAL, *folder.glob(".checkpoint-*.removed")):
        shutil.rmtree(path, ignore_errors=True)
    for checkpoint in reversed(checkpoints(folder)):
        reason = checkpoint_fault(checkpoint)
        if reason is None:
            reason = fault(TrainerState.load_from_json(str(checkpoint / _STATE)))
        if reason is None:
            return checkpoint
        warnings.warn(f"the checkpoint {str(checkpoint)!r} is passed over: {reason}", stacklevel=2)
        with suppress(OSError):
            remove_folder(checkpoint)
    return None


def remove_checkpoints(folder: Path) -> None:
    """Delete all checkpoints in ``folder``, the last ones first."""
    for checkpoint in reversed(checkpoints(folder)):
        remove_folder(checkpoint)


def checkpoint_fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint: the file that is missing or cannot be read. ``None`` if nothing is."""
    try:
        state = TrainerState.load_from_json(str(checkpoint / _STATE))
        if f"checkpoint-{state.global_step}" != checkpoint.name:
            return f"{_STATE} is of update {state.global_step}"
    except FileNotFoundError:
        return f"{_STATE} is missing"
    except (OSError, ValueError, TypeError):
        return f"{_STATE} cannot be read"
    for what, patterns in _NEEDED.items():
        if not any(path for pattern in patterns for path in checkpoint.glob(pattern)):
            return f"the file of its {what} is missing"
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and not is_whole(path):
            return f"{path.relative_to(checkpoint)} cannot be read"
    return _missing_shard(checkpoint)


def is_whole(path: Path) -> bool:
    """Whether a file of a checkpoint can be read; what is of no known kind is taken for whole."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:  # fails where the file is shorter than its header says
                file.keys()
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix in {".pt", ".pth", ".bin"}:
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile):
        return False
    return True


def _missing_shard(checkpoint: Path) -> str | None:
    for index in checkpoint.glob("*.index.json"):
        for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())):
            if not (checkpoint / name).is_file():
                return f"{name} is missing"
    return None
