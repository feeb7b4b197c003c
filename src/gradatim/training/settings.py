"""How training runs, apart from what is learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainingArguments

from gradatim.errors import GradatimError


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters (Hu et al., "LoRA", 2021) instead of full fine-tuning.

    Attributes:
        rank: of the update of each weight matrix.
        alpha: the update is scaled by ``alpha / rank``.
        dropout: on the adapters' input.
        target_modules: names of the modules to adapt, or ``"all-linear"``.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How training runs, apart from what is learned.

    Attributes:
        output_dir: where checkpoints go; ``None`` writes nothing.
        learning_rate: peak, reached after ``warmup_ratio`` of the updates, then a cosine to zero.
        epochs: passes over the examples.
        tokens_per_batch: packed tokens in one forward pass at most; trees above it are divided.
        gradient_accumulation_steps: forward passes per update. The loss of an update does not depend on how its
            examples are divided among them.
        bf16: compute in bfloat16 mixed precision.
        lora: train adapters of this kind only.
        save_every: updates between checkpoints; ``None`` saves none.
        resume: go on from the last checkpoint in ``output_dir`` where there is one.
        evaluate_every: updates between two calls of the evaluation function, where one is given.
        patience: stop after so many evaluations without a better value; ``None`` never stops early.
        log_every: updates between two entries of the history.
    """

    output_dir: Path | None = None
    learning_rate: float = 1e-5
    epochs: float = 1.0
    tokens_per_batch: int = 2048
    gradient_accumulation_steps: int = 1
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    bf16: bool = False
    lora: LoraSettings | None = None
    save_every: int | None = None
    resume: bool = False
    evaluate_every: int = 50
    patience: int | None = None
    log_every: int = 10

    def __post_init__(self) -> None:
        positive = {
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
            "tokens_per_batch": self.tokens_per_batch,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "evaluate_every": self.evaluate_every,
            "log_every": self.log_every,
        }
        for name, value in positive.items():
            if value <= 0:
                raise GradatimError(f"the training setting {name} must be above 0, got {value}")
        if (self.save_every is not None or self.resume) and self.output_dir is None:
            raise GradatimError("checkpoints need a place: give the training settings an output_dir")


def training_arguments(settings: TrainingSettings, output_dir: Path) -> TrainingArguments:
    """The arguments of :class:`transformers.Trainer` that say the same.

    Rows are packed beforehand, so a batch is one row and data loading needs no workers.
    """
    return TrainingArguments(
        output_dir=str(output_dir),
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_ratio,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
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
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=[],
        report_to="none",
        disable_tqdm=True,
    )
