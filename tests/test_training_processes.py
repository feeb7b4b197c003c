"""Two processes train as one does: the same losses, metrics, measurements and weights, also on an odd number of rows.

One pair of processes does all of it, since starting them takes longest.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from gradatim.engine.heads import attach_heads
from gradatim.errors import GradatimError
from gradatim.objectives import ProcessReward, Svpo, Value
from gradatim.processes import process_number
from gradatim.run.fitting import fit
from gradatim.run.progress import StageProgress
from gradatim.run.together import by_first
from gradatim.training import LoraSettings, TrainingResult, TrainingSettings, TreeTrainer, arguments, train
from gradatim.training.checkpoints import checkpoints
from gradatim.training.rows import build_row, plan_rows
from test_training_trainer import labels, record, reward_model, sibling_pairs, weights_of
from training_models import random_tree, tiny_model

TREES = [random_tree(seed, nodes=5 + seed) for seed in range(7)]
TERMS = labels(TREES)
PAIRS = sibling_pairs(record(tiny_model(), TREES))
SETTINGS = TrainingSettings(
    learning_rate=5e-3, warmup_ratio=0.0, tokens_per_batch=50, epochs=2, gradient_accumulation_steps=2, log_every=1,
    evaluate_every=2, optimizer="sgd",
)  # fmt: skip


def measure(model: Any) -> float:
    """A number that every update changes, up or down as it happens; the first process alone is asked for it."""
    assert process_number() == 0
    with torch.no_grad():
        return round(float(model(input_ids=torch.tensor([[3, 4, 5, 6]])).logits.double().sum()) * 1e2 % 1.0, 3)


def outcome(result: TrainingResult) -> dict[str, Any]:
    return {
        "history": result.history,
        "updates": result.updates,
        "evaluations": {str(update): value for update, value in result.evaluations.items()},
        "best": result.best_update,
        "weights": weights_of(result.model).tolist(),
    }


def judge(**changes: Any) -> dict[str, Any]:
    """A reward model."""
    return outcome(train(reward_model(), ProcessReward(), TERMS, replace(SETTINGS, **changes), evaluate=measure))


def policy_and_head(**changes: Any) -> dict[str, Any]:
    """A policy and its value head, more than one row of each process in an update."""
    torch.manual_seed(0)
    settings = replace(SETTINGS, gradient_accumulation_steps=4, **changes)
    return outcome(train(tiny_model(), Svpo(), PAIRS, settings))


def head_alone(**changes: Any) -> dict[str, Any]:
    """A policy of which the head says something alone, so that the output layer learns nothing."""
    model = tiny_model()
    attach_heads(model, Value().heads)
    return outcome(train(model, Value(), TERMS, replace(SETTINGS, **changes)))


def whole_run(folder: Path) -> dict[str, Any]:
    """What a command does: the first process trains with checkpoints, and others help where there are some."""
    settings = replace(SETTINGS, save_every=2, output_dir=folder, resume=True)
    stage = StageProgress("training", None, 0, Console(quiet=True), None)
    given = {"stage": stage, "evaluate": measure, "measure": ("held out", 1.0)}
    return by_first(lambda: outcome(fit(reward_model(), ProcessReward(), TERMS, settings, **given)))()


ALONE = {
    "judge": judge,
    "policy and head": policy_and_head,
    "head alone": head_alone,
    "adapters and head": partial(policy_and_head, lora=LoraSettings(rank=2), gradient_checkpointing=True),
    "16 bits": partial(policy_and_head, dtype="bfloat16"),
}
SHARDED = {
    "judge": partial(judge, fsdp=True),
    "policy and head": partial(policy_and_head, fsdp=True),
    "head alone": partial(head_alone, fsdp=True),
    "adapters and head": partial(policy_and_head, lora=LoraSettings(rank=2), gradient_checkpointing=True, fsdp=True),
    "16 bits": partial(policy_and_head, dtype="bfloat16", fsdp=True),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(2):
        environment = {
            **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            "TORCH_CPP_LOG_LEVEL": "ERROR",
        }  # fmt: skip
        command = [sys.executable, __file__, str(folder)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    said = [process.communicate(timeout=300)[0].decode()[-3000:] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def assert_alike(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float) -> None:
    assert ours["updates"] == theirs["updates"]
    assert ours["best"] == theirs["best"]
    assert ours["evaluations"] == pytest.approx(theirs["evaluations"], abs=0.02)
    assert ours["weights"] == pytest.approx(theirs["weights"], abs=tolerance)
    assert len(ours["history"]) == len(theirs["history"]) > 0
    for mine, other in zip(ours["history"], theirs["history"], strict=True):
        assert mine.keys() == other.keys() > {"loss", "grad_norm"}
        assert len(mine) > 6  # the objective's metrics too
        # the last pass over a number of rows that two do not divide has one more of no weight
        assert {**mine, "epoch": 0.0} == pytest.approx({**other, "epoch": 0.0}, abs=10 * tolerance)


@pytest.mark.parametrize("way", ["alone", "sharded"])
@pytest.mark.parametrize("name", ALONE)
def test_two_processes_train_as_one(name: str, way: str, found: list[dict[str, Any]]) -> None:
    rows = [build_row(part) for part in plan_rows(TERMS, SETTINGS.tokens_per_batch, seed=SETTINGS.seed)]
    assert len(rows) % 2 == 1
    assert len({len(row.weight) for row in rows}) > 1  # a mean over rows would be another than that over steps
    one = ALONE[name]()
    assert max(map(abs, one["weights"])) > 0.1
    for two in found:
        assert_alike(two[way][name], one, 1e-3 if name == "16 bits" else 2e-6)


def test_a_run_goes_on_where_two_processes_were_broken_off(found: list[dict[str, Any]], tmp_path: Path) -> None:
    one = whole_run(tmp_path)
    for two in found:
        assert two["broken off behind"] == "checkpoint-4"
        assert_alike(two["run"], one, 2e-6)


def test_a_loss_that_is_no_number_in_one_process_stops_both(found: list[dict[str, Any]]) -> None:
    for two in found:
        assert "the loss of update 3 or its gradient is not a finite number" in two["not finite"]
        assert "the checkpoint" in two["not finite"]
        assert "checkpoint-2' is from before" in two["not finite"]


def patched_step(do: Any) -> Any:
    """Have something happen before each forward pass."""
    step = TreeTrainer.training_step

    def training_step(self: TreeTrainer, *given: Any, **options: Any) -> Any:
        do(self)
        return step(self, *given, **options)

    TreeTrainer.training_step = training_step  # type: ignore[method-assign]
    return lambda: setattr(TreeTrainer, "training_step", step)


def broken_off(folder: Path) -> str:
    """Have both processes stop in the middle; the last checkpoint that they leave."""

    def stop(trainer: TreeTrainer) -> None:
        if trainer.state.global_step == 5:
            raise KeyboardInterrupt

    undo = patched_step(stop)
    try:
        whole_run(folder)
    except KeyboardInterrupt:
        return checkpoints(folder)[-1].name
    finally:
        undo()
    return "went on"


def not_finite(folder: Path) -> str:
    """Spoil the weights of one process; what both say."""

    def spoil(trainer: TreeTrainer) -> None:
        if trainer.state.global_step == 2 and process_number() == 1:
            with torch.no_grad():
                next(trainer.model.parameters()).fill_(torch.nan)

    undo = patched_step(spoil)
    try:
        judge(output_dir=folder, save_every=2)
    except GradatimError as error:
        return str(error)
    finally:
        undo()
    return "went on"


def shard_on_cpus() -> None:
    """Let accelerate divide a model among processes on CPUs, for which it has no need; torch does it there too."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    begin = AcceleratorState.__init__

    def sharding(self: Any, *given: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        begin(self, *given, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None:
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = sharding
    arguments.check_devices = lambda options: None


def in_process(folder: Path) -> dict[str, Any]:
    """What one of two processes does."""
    known: dict[str, Any] = {"broken off behind": broken_off(folder / "run"), "run": whole_run(folder / "run")}
    known["alone"] = {name: run() for name, run in ALONE.items()}
    known["not finite"] = not_finite(folder / "not finite")
    shard_on_cpus()
    known["sharded"] = {name: run() for name, run in SHARDED.items()}
    return known


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / f"{process_number()}.json").write_text(json.dumps(in_process(place)))
