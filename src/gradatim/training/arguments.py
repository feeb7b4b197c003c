"""The settings of a training as transformers takes them, and whether what they ask for can be had here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from gradatim.errors import GradatimError
from gradatim.processes import process_count
from gradatim.suggestions import suggestion
from gradatim.training.collective import WAIT
from gradatim.training.reports import PROJECT, check_reports
from gradatim.training.settings import TrainingOptions, TrainingSettings

_WAITING_FOR_MEASURES = {"reduce_lr_on_plateau", "greedy"}


def training_arguments(settings: TrainingSettings, output_dir: Path) -> TrainingArguments:
    """The arguments of :class:`transformers.Trainer` that say the same.

    Rows are packed beforehand, so a batch is one row and data loading needs no workers.

    Raises:
        GradatimError: see :func:`check_options`.
    """
    check_options(settings)
    return TrainingArguments(
        output_dir=str(output_dir),
        learning_rate=settings.learning_rate,
        optim=settings.optimizer,
        lr_scheduler_type=settings.scheduler,
        lr_scheduler_kwargs=dict(settings.scheduler_options),
        warmup_steps=settings.warmup_ratio,
        num_train_epochs=settings.epochs,
        max_steps=settings.updates or -1,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=_passes_of_each(settings),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        use_cpu=not torch.accelerator.is_available(),
        bf16=settings.bf16,
        save_strategy="no" if settings.save_every is None else "steps",
        save_steps=settings.save_every or 500,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=[],
        report_to="none",
        run_name=settings.name,
        project=PROJECT,
        disable_tqdm=True,
        ddp_find_unused_parameters=True,
        ddp_timeout=int(WAIT.total_seconds()),
        **_sharding(settings),
    )


def check_options(options: TrainingOptions) -> None:
    """Check that what a training asks of other libraries is there, before anything costs time.

    Raises:
        GradatimError: if an optimizer, a scheduler or a place to report to is not known or not installed; DeepSpeed is
            not, or is asked for what is not supported here; the processes cannot share the forward passes of an
            update; or weights are to be divided among processes and there is one, or it has no accelerator.
    """
    _check_optimizer(options.optimizer)
    _check_scheduler(options)
    check_reports(options.report_to)
    _passes_of_each(options)
    _sharding(options)


def _check_optimizer(name: str) -> None:
    names = [each.value for each in OptimizerNames]
    if name not in names:
        raise GradatimError(f"the optimizer {name!r} is not known; {suggestion(name, names)}")
    arguments = TrainingArguments(optim=name, use_cpu=not torch.accelerator.is_available(), report_to="none")
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments)
    except (ImportError, ValueError, RuntimeError) as error:
        raise GradatimError(
            f"the optimizer {name!r} cannot be used: {error}; choose another one, such as adamw_torch"
        ) from error


def _passes_of_each(options: TrainingOptions) -> int:
    """The forward passes that each process makes for an update."""
    passes, processes = options.gradient_accumulation_steps, process_count()
    if passes % processes:
        raise GradatimError(
            f"an update is of {passes} forward {'pass' if passes == 1 else 'passes'} in all, which {processes} "
            f"processes cannot share; make gradient_accumulation_steps (--accumulate) a multiple of {processes}"
        )
    return passes // processes


def _check_scheduler(options: TrainingOptions) -> None:
    name = options.scheduler
    names = sorted({each.value for each in SchedulerType} - _WAITING_FOR_MEASURES)
    if name not in names:
        raise GradatimError(f"the scheduler {name!r} is not known; {suggestion(name, names)}")
    weights = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=options.learning_rate)
    given = dict(options.scheduler_options)
    try:
        get_scheduler(name, weights, num_warmup_steps=1, num_training_steps=10, scheduler_specific_kwargs=given)
    except (ValueError, TypeError) as error:
        raise GradatimError(f"the scheduler {name!r} does not work with scheduler_options {given}: {error}") from error


def _sharding(options: TrainingOptions) -> dict[str, Any]:
    """What divides a model among processes, as transformers takes it."""
    if options.fsdp and options.deepspeed is not None:
        raise GradatimError("fsdp and deepspeed both divide a model; leave one of them out")
    check_devices(options)
    if options.deepspeed is not None:
        return {"deepspeed": _deepspeed(options.deepspeed)}
    return {"fsdp": True, "fsdp_config": _fsdp(options)} if options.fsdp else {}


def check_devices(options: TrainingOptions) -> None:
    """Check that there are devices to divide a model among.

    Raises:
        GradatimError: if a model is to be divided and there is no accelerator: accelerate divides nothing on CPUs.
    """
    if (options.fsdp or options.deepspeed is not None) and not torch.accelerator.is_available():
        name = "fsdp" if options.fsdp else "deepspeed"
        raise GradatimError(f"{name} needs accelerators; on CPUs leave it out, and processes train data-parallel")


def _fsdp(options: TrainingOptions) -> dict[str, Any]:
    """The ``fsdp_config`` of transformers."""
    config = {} if isinstance(options.fsdp, bool) else dict(options.fsdp)
    if config.get("version", config.get("fsdp_version", 2)) != 2:
        raise GradatimError("fsdp is FSDP2 here: leave its version out, or set it to 2")
    if config.get("activation_checkpointing"):
        raise GradatimError("say gradient_checkpointing of the training in the place of fsdp.activation_checkpointing")
    if options.lora is not None and options.lora.quantization is not None:
        raise GradatimError("fsdp does not divide weights in few bits: leave it or the quantization of lora out")
    if process_count() == 1:
        raise GradatimError(
            "fsdp divides a model among processes, and this one is alone; start several, such as 'torchrun "
            "--nproc-per-node 8 -m gradatim ...', or leave it out"
        )
    return config


def _deepspeed(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of DeepSpeed."""
    if importlib.util.find_spec("deepspeed") is None:
        raise GradatimError("training with deepspeed needs it installed; install it with: pip install deepspeed")
    config = _read_deepspeed(given)
    zero = config.get("zero_optimization", {})
    if isinstance(zero, Mapping) and zero.get("stage", 0) not in (0, 1, 2):
        raise GradatimError(
            f"ZeRO stage {zero['stage']} divides the weights themselves, which heads and held-out measures read whole; "
            "use stage 1 or 2, or fsdp in the place of deepspeed"
        )
    if found := sorted(config.keys() & {"optimizer", "scheduler"}):
        raise GradatimError(
            f"the deepspeed configuration has a section {found[0]!r} of its own; say it as {found[0]} of the training "
            "and leave the section out"
        )
    return config


def _read_deepspeed(given: str | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, str):
        return dict(given)
    try:
        content = json.loads(Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GradatimError(f"the deepspeed configuration {given!r} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise GradatimError(f"the deepspeed configuration {given!r} is no section of keys; write a JSON object")
    return content
