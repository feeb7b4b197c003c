"""Two processes train as one does, also on an odd number of rows: the same losses, metrics and updates."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gradatim.objectives import ProcessReward
from gradatim.training import TrainingSettings
from gradatim.training.arguments import training_arguments
from gradatim.training.rows import build_row, plan_rows
from gradatim.training.trainer import TreeTrainer
from test_training_trainer import labels, reward_model, weights_of
from training_models import random_tree

TREES = [random_tree(seed, nodes=5 + seed) for seed in range(7)]
TOKENS = 50
TERMS = labels(TREES)


def train(folder: Path, accumulation: int) -> dict[str, Any]:
    """Two passes over an odd number of rows, two rows an update; returns what is to be equal."""
    settings = TrainingSettings(
        learning_rate=5e-3, warmup_ratio=0.0, tokens_per_batch=TOKENS, epochs=2,
        gradient_accumulation_steps=accumulation, log_every=3,
    )  # fmt: skip
    arguments = training_arguments(settings, folder)
    arguments.optim = "sgd"
    model = reward_model()
    trainer = TreeTrainer(
        model,
        arguments,
        objective=ProcessReward(),
        terms=TERMS,
        tokens_per_row=TOKENS,
    )
    before = weights_of(model).clone()
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "processes": trainer.accelerator.num_processes,
        "history": history,
        "moved": (weights_of(model) - before).tolist(),
        "updates": trainer.state.global_step,
    }


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    rows = [build_row(part) for part in plan_rows(TERMS, TOKENS, seed=TrainingSettings(learning_rate=1.0).seed)]
    assert len(rows) % 2 == 1
    assert len({len(row.weight) for row in rows}) > 1  # a mean over rows would be another than that over steps
    one = train(tmp_path, accumulation=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(2):
        environment = {
            **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            "ACCELERATE_USE_CPU": "true",
        }  # fmt: skip
        command = [sys.executable, __file__, str(tmp_path / f"{rank}.json")]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    said = [process.communicate(timeout=300)[0].decode()[-2000:] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    for rank in range(2):
        two = json.loads((tmp_path / f"{rank}.json").read_text())
        assert (two["processes"], one["processes"]) == (2, 1)
        assert two["updates"] == one["updates"]
        assert two["moved"] == pytest.approx(one["moved"], abs=1e-6)
        assert max(map(abs, one["moved"])) > 1e-4
        assert len(two["history"]) == len(one["history"]) > 1
        for ours, theirs in zip(two["history"], one["history"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)
            assert {"loss", "accuracy", "mean_score", "mean_label"} <= ours.keys()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(json.dumps(train(target.parent / "folder", accumulation=2)))
