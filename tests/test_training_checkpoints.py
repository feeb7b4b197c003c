"""Checkpoints are whole or absent, and training that goes on from one ends like training that was never stopped."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gradatim.objectives import ProcessReward
from gradatim.training import LoraSettings, TrainingResult, TrainingSettings, TreeTrainer, fit
from gradatim.training.checkpoints import CheckpointTrainer, checkpoint_fault, checkpoints, last_checkpoint
from test_training_trainer import labels, reward_model, weights_of
from training_models import random_tree

TREES = [random_tree(seed, nodes=10) for seed in range(6)]
UPDATES = 13  # two and a half passes over five rows


class StopError(Exception):
    """Stands for whatever ends a training."""


def train(folder: Path | None, **changes: Any) -> TrainingResult:
    """Thirteen updates, a checkpoint after every three of them, a measurement after every two."""
    settings = TrainingSettings(
        **{
            "output_dir": folder, "learning_rate": 5e-3, "warmup_ratio": 0.0, "tokens_per_batch": 64, "epochs": 2.5,
            "log_every": 4, "save_every": 3, "evaluate_every": 2, "resume": True, **changes,
        }
    )  # fmt: skip
    return fit.train(reward_model(), ProcessReward(), labels(TREES), settings, evaluate=jumpy)


def jumpy(model: Any) -> float:
    """A number that every update changes, up or down as it happens."""
    return float(weights_of(model).double().sum() * 1e4) % 1.0


def stopped(folder: Path, update: int, **changes: Any) -> None:
    """Train until some update is being made."""
    step = TreeTrainer.training_step

    def stop(self: TreeTrainer, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step + 1 == update:
            raise StopError
        return step(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TreeTrainer, "training_step", stop)
        with pytest.raises(StopError):
            train(folder, **changes)


def outcome(result: TrainingResult) -> dict[str, Any]:
    return {
        "updates": result.updates,
        "history": result.history,
        "evaluations": result.evaluations,
        "best": result.best_update,
        "weights": weights_of(result.model).tolist(),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of a training that nobody stopped."""
    found = outcome(train(tmp_path_factory.mktemp("whole")))
    assert found["updates"] == UPDATES
    assert sorted(found["evaluations"]) == [0, 2, 4, 6, 8, 10, 12, 13]
    assert len(set(found["evaluations"].values())) == 8
    return found


@pytest.mark.parametrize("updates", [(2,), (4, 5), (8, 10), (13,)])
def test_a_stopped_training_ends_as_an_unbroken_one(
    updates: tuple[int, ...], whole: dict[str, Any], tmp_path: Path
) -> None:
    for update in updates:
        stopped(tmp_path, update)
    assert outcome(train(tmp_path)) == whole


def test_a_checkpoint_of_the_last_update_is_the_end_of_the_training(whole: dict[str, Any], tmp_path: Path) -> None:
    train(tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-12", "checkpoint-13"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TreeTrainer, "training_step", StopError)
        assert outcome(train(tmp_path)) == whole


@pytest.mark.parametrize("patience", [1, 2])
def test_patience_runs_out_at_the_same_update(patience: int, tmp_path: Path) -> None:
    """With a checkpoint after every update, so that there is also one of the update at which patience ran out."""
    unbroken = outcome(train(tmp_path / "whole", patience=patience, save_every=1))
    last = unbroken["updates"]
    assert 2 < last < UPDATES
    for update in (last - 1, last):
        stopped(tmp_path / "broken", update, patience=patience, save_every=1)
    assert outcome(train(tmp_path / "broken", patience=patience, save_every=1)) == unbroken
    assert outcome(train(tmp_path / "broken", patience=patience, save_every=1)) == unbroken


_KILLED = """
import os, signal, sys
from pathlib import Path
from gradatim.training import TreeTrainer
from test_training_checkpoints import train

step = TreeTrainer.training_step

def killed(self, *arguments, **options):
    if self.state.global_step + 1 == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments, **options)

TreeTrainer.training_step = killed
train(Path(sys.argv[1]), patience=3)
"""


def test_a_killed_training_remembers_the_measurements_that_patience_counts(tmp_path: Path) -> None:
    """Patience runs out between two checkpoints, by measurements of which some were made before the kill."""
    unbroken = outcome(train(tmp_path / "whole", patience=3))
    last = unbroken["updates"]
    assert 6 < last < UPDATES  # there were two checkpoints, and patience ran out
    folders = [str(Path(__file__).parent), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path / "broken"), str(last)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoints(tmp_path / "broken")
    assert outcome(train(tmp_path / "broken", patience=3)) == unbroken


def test_a_checkpoint_of_a_version_that_kept_no_evaluations_is_gone_on_from(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    stopped(tmp_path, 11)
    for checkpoint in checkpoints(tmp_path):
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        del state["stateful_callbacks"]["BestState"], state["stateful_callbacks"]["CheckpointTrainer"]
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    best = tmp_path / "best.safetensors"
    step = max((step for step in whole["evaluations"] if step < 11), key=lambda step: whole["evaluations"][step])
    values = {str(other): value for other, value in whole["evaluations"].items() if other <= step}
    save_file(load_file(best), best, {"step": str(step), "values": json.dumps(values)})
    again = outcome(train(tmp_path))
    assert again["weights"] == whole["weights"]
    assert again["best"] == whole["best"]
    assert values.items() <= {str(other): value for other, value in again["evaluations"].items()}.items()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def blank(path: Path) -> None:
    """As a file system may leave a file whose content never reached the disk."""
    path.write_bytes(bytes(path.stat().st_size))


DAMAGE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no state": ("trainer_state.json", Path.unlink, "trainer_state.json is missing"),
    "torn state": ("trainer_state.json", cut, "trainer_state.json cannot be read"),
    "other state": ("trainer_state.json", lambda path: path.write_text('{"global_step": 3}'), "is of update 3"),
    "no weights": ("model.safetensors", Path.unlink, "the file of its weights is missing"),
    "torn weights": ("model.safetensors", cut, "model.safetensors cannot be read"),
    "empty weights": ("model.safetensors", lambda path: path.write_bytes(b""), "model.safetensors cannot be read"),
    "no optimizer": ("optimizer.pt", Path.unlink, "the file of its optimizer is missing"),
    "torn optimizer": ("optimizer.pt", cut, "optimizer.pt cannot be read"),
    "blank optimizer": ("optimizer.pt", blank, "optimizer.pt cannot be read"),
    "torn scheduler": ("scheduler.pt", cut, "scheduler.pt cannot be read"),
    "no random state": ("rng_state.pth", Path.unlink, "the file of its random state is missing"),
    "torn random state": ("rng_state.pth", cut, "rng_state.pth cannot be read"),
    "torn configuration": ("config.json", cut, "config.json cannot be read"),
}


@pytest.fixture(scope="module")
def at_eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of the third and the sixth update."""
    folder = tmp_path_factory.mktemp("eight")
    stopped(folder, 8)
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-3", "checkpoint-6"]
    assert all(checkpoint_fault(path) is None for path in checkpoints(folder))
    return folder


@pytest.mark.parametrize("name", DAMAGE)
def test_a_checkpoint_that_cannot_be_read_is_passed_over(name: str, at_eight: Path, tmp_path: Path) -> None:
    file, damage, message = DAMAGE[name]
    shutil.copytree(at_eight, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoint-6" / file)
    (tmp_path / "run" / ".checkpoint.partial" / "checkpoint-7").mkdir(parents=True)
    with pytest.warns(UserWarning, match=f"checkpoint-6' is passed over: .*{message}"):
        found = last_checkpoint(tmp_path / "run")
    assert found is not None
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best.safetensors", "checkpoint-3"]


def test_training_goes_on_from_the_checkpoint_before(whole: dict[str, Any], at_eight: Path, tmp_path: Path) -> None:
    shutil.copytree(at_eight, tmp_path / "run")
    cut(tmp_path / "run" / "checkpoint-6" / "optimizer.pt")
    with pytest.warns(UserWarning, match="checkpoint-6' is passed over"):
        assert outcome(train(tmp_path / "run")) == whole
    assert all(checkpoint_fault(path) is None for path in checkpoints(tmp_path / "run"))


def test_training_begins_anew_where_no_checkpoint_can_be_read(
    whole: dict[str, Any], at_eight: Path, tmp_path: Path
) -> None:
    shutil.copytree(at_eight, tmp_path / "run")
    for checkpoint in checkpoints(tmp_path / "run"):
        (checkpoint / "trainer_state.json").unlink()
    with pytest.warns(UserWarning, match="passed over"):
        assert outcome(train(tmp_path / "run")) == whole


@pytest.mark.parametrize("damage", [cut, Path.unlink, blank])
def test_a_lost_best_state_is_found_again(
    damage: Callable[[Path], None], whole: dict[str, Any], at_eight: Path, tmp_path: Path
) -> None:
    shutil.copytree(at_eight, tmp_path / "run")
    damage(tmp_path / "run" / "best.safetensors")
    with pytest.warns(UserWarning, match="passed over: (best.* does not hold the best state|it cannot be read)"):
        assert outcome(train(tmp_path / "run")) == whole


@pytest.mark.parametrize("writer", ["save_model", "_save_optimizer_and_scheduler", "_save_rng_state"])
def test_a_disk_that_is_full_leaves_no_part_of_a_checkpoint(
    writer: str, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(CheckpointTrainer, writer)

    def full(self: CheckpointTrainer, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        if self.state.global_step == 6:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointTrainer, writer, full)
        with pytest.raises(OSError, match="No space left"):
            train(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "checkpoint-3"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert outcome(train(tmp_path)) == whole


def test_a_new_training_does_not_take_up_what_an_earlier_one_left(at_eight: Path, tmp_path: Path) -> None:
    shutil.copytree(at_eight, tmp_path / "run")
    stopped(tmp_path / "run", 2, resume=False)
    assert checkpoints(tmp_path / "run") == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_training_checkpoints.jumpy", lambda model: -1.0)
        assert train(tmp_path / "run").best_update == 0


def test_checkpoints_of_adapters_are_gone_on_from(tmp_path: Path) -> None:
    lora = {"lora": LoraSettings(rank=2)}
    torch.manual_seed(0)
    unbroken = outcome(train(tmp_path / "whole", **lora))
    torch.manual_seed(0)
    stopped(tmp_path / "broken", 8, **lora)
    assert checkpoint_fault(tmp_path / "broken" / "checkpoint-6") is None
    cut(tmp_path / "broken" / "checkpoint-6" / "adapter_model.safetensors")
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"adapter_model\.safetensors cannot be read"):
        assert outcome(train(tmp_path / "broken", **lora)) == unbroken
