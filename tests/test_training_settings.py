"""What a training may be told: optimizers, schedules, types of weights, where it reports to; and what cannot be had."""

from __future__ import annotations

import importlib.util
import io
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from gradatim.engine.heads import attach_heads, heads_of
from gradatim.errors import GradatimError
from gradatim.objectives import ProcessReward, Svpo
from gradatim.run.fitting import fit
from gradatim.run.models import Models
from gradatim.run.progress import StageProgress
from gradatim.tasks.countdown import Countdown
from gradatim.training import LoraSettings, TrainingOptions, TrainingResult, TrainingSettings, TreeTrainer, train
from gradatim.training.arguments import check_options, training_arguments
from gradatim.training.checkpoints import checkpoints
from gradatim.training.sharding import fill, readable, without_weights
from small_runs import small_recipe
from test_training_trainer import labels, record, reward_model, sibling_pairs, weights_of
from training_models import random_tree, tiny_model

TREES = record(tiny_model(), [random_tree(seed, nodes=8) for seed in range(4)])
SETTINGS = TrainingSettings(learning_rate=5e-3, warmup_ratio=0.0, tokens_per_batch=60, epochs=2, log_every=1)


def judge(settings: TrainingSettings, **options: Any) -> TrainingResult:
    return train(reward_model(), ProcessReward(), labels(TREES), settings, **options)


def policy(settings: TrainingSettings) -> TrainingResult:
    torch.manual_seed(0)
    return train(tiny_model(), Svpo(), sibling_pairs(TREES), settings)


# What cannot be had is said before anything costs time


def said(**options: Any) -> str:
    with pytest.raises(GradatimError) as refusal:
        check_options(TrainingOptions(**options))
    return str(refusal.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer": "adamw_troch"}, "the optimizer 'adamw_troch' is not known; did you mean 'adamw_torch'?"),
        ({"optimizer": "galore_adamw"}, "the optimizer 'galore_adamw' cannot be used: "),
        ({"scheduler": "cosin"}, "the scheduler 'cosin' is not known; did you mean 'cosine'?"),
        ({"scheduler": "reduce_lr_on_plateau"}, "the scheduler 'reduce_lr_on_plateau' is not known"),
        ({"scheduler": "cosine_with_min_lr"}, "the scheduler 'cosine_with_min_lr' does not work with"),
        ({"scheduler_options": {"minimum": 1}}, "the scheduler 'cosine' does not work with scheduler_options"),
        ({"report_to": ("tensorbord",)}, "report_to names 'tensorbord', which is not known; did you mean"),
        ({"report_to": ("clearml",)}, "reporting to clearml needs it installed; install it with: pip install clearml"),
        ({"fsdp": True, "deepspeed": {}}, "fsdp and deepspeed both divide a model"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(given: dict[str, Any], message: str) -> None:
    assert said(**given).startswith(message)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")
@pytest.mark.parametrize("name", ["fsdp", "deepspeed"])
def test_models_are_not_divided_on_cpus(name: str) -> None:
    assert said(**{name: {}} if name == "deepspeed" else {name: True}) == (
        f"{name} needs accelerators; on CPUs leave it out, and processes train data-parallel"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fsdp": {"version": 1}}, "fsdp is FSDP2 here"),
        ({"fsdp": {"activation_checkpointing": True}}, "say gradient_checkpointing of the training"),
        ({"fsdp": True, "lora": LoraSettings(quantization="4bit")}, "fsdp does not divide weights in few bits"),
        ({"fsdp": True}, "fsdp divides a model among processes, and this one is alone; start several"),
        ({"deepspeed": {}}, "training with deepspeed needs it installed"),
        ({"deepspeed": "nowhere.json"}, "the deepspeed configuration 'nowhere.json' cannot be read"),
        ({"deepspeed": {"zero_optimization": {"stage": 3}}}, "ZeRO stage 3 divides the weights themselves"),
        ({"deepspeed": {"optimizer": {}}}, "the deepspeed configuration has a section 'optimizer' of its own"),
    ],
)
def test_how_a_model_is_divided_is_checked(
    given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradatim.training.arguments.check_devices", lambda options: None)
    installed, find = "installed" not in message, importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: installed or None if name == "deepspeed" else find(name)
    )
    assert said(**given).startswith(message)


def test_processes_share_the_forward_passes_of_an_update(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gradatim.training.arguments.process_count", lambda: 2)
    with pytest.raises(GradatimError, match="an update is of 3 forward passes in all, which 2 processes cannot share"):
        training_arguments(replace(SETTINGS, gradient_accumulation_steps=3), tmp_path)
    arguments = training_arguments(replace(SETTINGS, gradient_accumulation_steps=4), tmp_path)
    assert arguments.gradient_accumulation_steps == 2


def test_whole_weights_are_not_trained_as_if_they_were_in_few_bits() -> None:
    with pytest.raises(GradatimError, match="the weights of the model are whole and the quantization of lora is 4bit"):
        judge(replace(SETTINGS, lora=LoraSettings(quantization="4bit")))


# Optimizers, schedules, types of weights


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adafactor", "rmsprop"])
def test_optimizers_train(optimizer: str) -> None:
    history = judge(replace(SETTINGS, optimizer=optimizer, epochs=4)).history
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_learning_rate_falls_as_asked() -> None:
    def rates(**changes: Any) -> list[float]:
        return [entry["learning_rate"] / 5e-3 for entry in judge(replace(SETTINGS, **changes)).history]

    assert set(rates(scheduler="constant_with_warmup")) == {1.0}
    linear = rates(scheduler="linear")
    assert linear == pytest.approx([1 - place / len(linear) for place in range(len(linear))])
    ended = rates(scheduler="cosine_with_min_lr", scheduler_options={"min_lr": 2.5e-3})
    assert min(ended) > 0.5 > min(rates())


def test_weights_learn_in_bfloat16_and_heads_in_float32() -> None:
    result = policy(replace(SETTINGS, dtype="bfloat16", epochs=3))
    assert result.model.dtype == torch.bfloat16
    assert {each.dtype for head in heads_of(result.model).values() for each in head.parameters()} == {torch.float32}
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    score = judge(replace(SETTINGS, dtype="bfloat16")).model
    assert {each.dtype for each in score.parameters()} == {torch.bfloat16}


def test_adapters_learn_in_float32_on_weights_in_bfloat16() -> None:
    result = policy(replace(SETTINGS, dtype="bfloat16", lora=LoraSettings(rank=2), gradient_checkpointing=True))
    kinds = {each.requires_grad: set[torch.dtype]() for each in result.model.parameters()}
    for each in result.model.parameters():
        kinds[each.requires_grad].add(each.dtype)
    assert kinds[True] == {torch.float32}
    assert torch.bfloat16 in kinds[False]
    assert result.history[0]["loss"] == pytest.approx(policy(SETTINGS).history[0]["loss"], abs=0.05)


def test_activation_checkpoints_change_nothing_and_are_gone_afterwards() -> None:
    plain, recomputed = policy(SETTINGS), policy(replace(SETTINGS, gradient_checkpointing=True))
    assert recomputed.history == plain.history
    layers = [each for each in recomputed.model.modules() if hasattr(each, "gradient_checkpointing")]
    assert layers
    assert not any(each.gradient_checkpointing for each in layers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_recipe_loads_models_in_the_type_that_they_learn_in(dtype: Any) -> None:
    options = small_recipe(problems={"train": 3, "test": 2}).policy
    models = Models(Countdown(), lambda **known: None)
    training = TrainingOptions(dtype=dtype)
    model = models.check_trainable("policy", "shipped:countdown", options, training, as_reward=False)
    assert model.dtype == getattr(torch, dtype)


# A loss that is no number


def spoiled(update: int) -> Callable[..., Any]:
    """A forward pass before an update after which nothing is a number."""
    step = TreeTrainer.training_step

    def training_step(self: TreeTrainer, *given: Any, **options: Any) -> Any:
        if self.state.global_step + 1 == update:
            with torch.no_grad():
                next(self.model.parameters()).fill_(torch.nan)
        return step(self, *given, **options)

    return training_step


def test_a_loss_that_is_no_number_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    settings = replace(SETTINGS, output_dir=tmp_path / "broken", save_every=1, resume=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TreeTrainer, "training_step", spoiled(4))
        message = (
            "the loss of update 4 or its gradient is not a finite number, and would destroy the model, so training "
        )
        with pytest.raises(GradatimError, match=re.escape(message)) as stopped:
            judge(settings)
    assert str(stopped.value).endswith("checkpoint-3' is from before")
    assert [path.name for path in checkpoints(tmp_path / "broken")] == ["checkpoint-2", "checkpoint-3"]
    again, whole = judge(settings), judge(replace(settings, output_dir=tmp_path / "whole"))
    assert again.history == whole.history
    torch.testing.assert_close(weights_of(again.model), weights_of(whole.model), atol=0, rtol=0)


def test_an_infinite_loss_stops_training_though_its_gradient_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = ProcessReward.loss

    def infinite(self: ProcessReward, quantities: Any) -> Any:
        found = loss(self, quantities)
        return replace(found, per_term=found.per_term + torch.inf)

    monkeypatch.setattr(ProcessReward, "loss", infinite)
    model = reward_model()
    before = weights_of(model)
    with pytest.raises(GradatimError, match="the loss of update 1 or its gradient is not a finite number"):
        train(model, ProcessReward(), labels(TREES), SETTINGS)
    assert torch.equal(weights_of(model), before)


# Where a training is told of


TRACKIO = """
import contextvars, types
runs, current = [], contextvars.ContextVar("run", default=None)
context_vars = types.SimpleNamespace(current_space_id=contextvars.ContextVar("space", default=None))
config = {}
__version__ = "1.0"

class Config(dict):
    def update(self, given, allow_val_change=False):
        pass

config = Config()

def init(*, project, name, **options):
    runs.append({"project": project, "name": name, "logged": [], "finished": False})
    current.set(runs[-1])

def log(values):
    current.get()["logged"].append(values)

def finish():
    if current.get() is None:
        raise RuntimeError("Call trackio.init() before trackio.finish().")
    current.get()["finished"] = True
    current.set(None)
"""


@pytest.fixture
def trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package of this name that notes what it is told."""
    (tmp_path / "trackio.py").write_text(TRACKIO)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    import trackio

    return trackio


def test_every_training_is_a_run_of_its_own_with_losses_metrics_and_held_out_values(trackio: Any) -> None:
    for name in ("run-policy-1", "run-policy-2"):
        values = iter([-0.7, -0.5, -0.6, -0.4, -0.3, -0.2])
        settings = replace(SETTINGS, report_to=("trackio",), evaluate_every=2, name=name)
        result = judge(settings, evaluate=lambda model, source=values: next(source), measure=("held-out loss", -1.0))
        told = trackio.runs[-1]
        assert (told["project"], told["name"], told["finished"]) == ("gradatim", name, True)
        measured = [each for each in told["logged"] if "eval/held_out_loss" in each]
        curve = {each["train/global_step"]: each["eval/held_out_loss"] for each in measured}
        assert curve == {update: -value for update, value in result.evaluations.items()}
        entries = [each for each in told["logged"] if "train/loss" in each]
        assert [each["train/loss"] for each in entries] == [entry["loss"] for entry in result.history]
        assert len(entries) == result.updates
        assert all({"train/accuracy", "train/grad_norm", "train/learning_rate"} <= each.keys() for each in entries)
    assert len(trackio.runs) == 2


def test_a_training_that_fails_ends_its_run(trackio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TreeTrainer, "training_step", spoiled(2))
    with pytest.raises(GradatimError, match="not a finite number"):
        judge(replace(SETTINGS, report_to=("trackio",), name="broken"))
    assert [each["finished"] for each in trackio.runs] == [True]


def test_a_person_sees_the_loss_what_is_held_out_and_how_long_is_left(tmp_path: Path) -> None:
    remarks: list[str] = []
    stage = StageProgress("training", None, 0, Console(file=io.StringIO()), None)
    note = stage.note
    stage.note = lambda remark: (remarks.append(remark), note(remark))[1]  # type: ignore[method-assign]
    settings = replace(SETTINGS, output_dir=tmp_path, evaluate_every=2)
    values = iter([-0.7, -0.5, -0.4, -0.3, -0.2, -0.1])
    fit(
        reward_model(), ProcessReward(), labels(TREES), settings,
        stage=stage, evaluate=lambda model: next(values), measure=("held-out loss", -1.0),
    )  # fmt: skip
    assert any(
        re.fullmatch(r"update 3 of \d, loss 0\.\d{4}, held-out loss 0\.5000, about \d s left", each) for each in remarks
    ), remarks


# Models that are divided, as far as one process can tell


def test_a_copy_without_weights_takes_on_those_of_its_model() -> None:
    model: Any = tiny_model("gemma3")  # its embeddings are its output layer
    attach_heads(model, Svpo().heads)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    blank: Any = without_weights(model)
    assert all(each.is_meta for each in blank.parameters())
    tokens, device = torch.tensor([[3, 4, 5]]), torch.device("cpu")
    with readable(model, blank, device) as whole:
        assert torch.equal(whole(input_ids=tokens).logits, model(input_ids=tokens).logits)
    assert all(each.is_meta for each in blank.parameters())
    fill(blank, model, device)
    assert blank.lm_head.weight is blank.model.embed_tokens.weight
    with torch.no_grad():
        for each in nn.Module.parameters(model):
            each.add_(1.0)
    assert not torch.equal(blank.lm_head.weight, model.lm_head.weight)
