"""How training runs, apart from what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import options

Share = Annotated[float, Field(ge=0, lt=1)]
"""A share of something, but never all of it."""


@options
class LoraSettings:
    """Low-rank adapters (Hu et al., "LoRA", 2021) instead of full fine-tuning."""

    rank: PositiveInt = 16
    """Of the update of each weight matrix."""
    alpha: PositiveFloat = 32.0
    """The update is scaled by `alpha / rank`."""
    dropout: Share = 0.0
    """On the adapters' input."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """The names of the modules to adapt, or `all-linear`."""
    quantization: Literal["8bit", "4bit"] | None = None
    """Keep the frozen weights in 8 or 4 bits while adapters are trained, with bitsandbytes (4: Dettmers et al.,
    "QLoRA", 2023, arXiv:2305.14314); in the end adapters are merged into the whole weights."""


@options
class TrainingOptions:
    """How training runs, as a recipe says it."""

    learning_rate: PositiveFloat = 1e-5
    """Its peak, reached after the warm-up."""
    epochs: PositiveFloat = 1.0
    """Passes over the terms."""
    updates: PositiveInt | None = None
    """So many updates, in the place of `epochs`; the terms are passed over as often as that takes."""
    tokens_per_batch: PositiveInt = 2048
    """Packed tokens in one forward pass at most; larger trees are divided."""
    gradient_accumulation_steps: PositiveInt = 1
    """Forward passes for each update, those of all processes together; its loss does not depend on how its terms are
    divided among them."""
    optimizer: str = "adamw_torch_fused"
    """What makes the updates, as transformers names it: `adamw_torch_fused`, `adafactor`, `paged_adamw_8bit`, ..."""
    scheduler: str = "cosine"
    """How the learning rate falls after the warm-up, as transformers names it: `cosine`, `linear`,
    `constant_with_warmup`, ..."""
    scheduler_options: dict[str, Any] = Field(default_factory=dict)
    """What else that takes, such as `min_lr` for `cosine_with_min_lr`."""
    warmup_ratio: Share = 0.05
    """Share of the updates in which the learning rate rises."""
    weight_decay: NonNegativeFloat = 0.0
    """How strongly weights are drawn to zero."""
    max_grad_norm: PositiveFloat = 1.0
    """Longer gradients are cut to this length."""
    bf16: bool = False
    """Compute in bfloat16 mixed precision."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The number format of the weights while they are trained, or of those that `lora` leaves as they are; adapters and
    heads always learn in float32. `bfloat16` takes half the memory, and where weights learn in it, it rounds small
    changes of them away."""
    gradient_checkpointing: bool = False
    """Compute what layers hold once more in the backward pass, in the place of keeping it: less memory, more time."""
    fsdp: bool | dict[str, Any] = False
    """Divide weights, gradients and optimizer states among the processes (FSDP2); a section has the keys of
    transformers' `fsdp_config`."""
    deepspeed: str | dict[str, Any] | None = None
    """A DeepSpeed configuration of ZeRO stage 1 or 2, as a section or the path of its file."""
    lora: LoraSettings | None = None
    """Train low-rank adapters instead of all weights; `null` trains all."""
    save_every: PositiveInt | None = 100
    """Updates between checkpoints; `null` saves none."""
    evaluate_every: PositiveInt = 50
    """Updates between two evaluations on what is held out, if anything is."""
    patience: PositiveInt | None = None
    """Stop after so many evaluations without a better value; `null` never stops early."""
    log_every: PositiveInt = 10
    """Updates between two entries of the training history."""
    report_to: tuple[str, ...] = ()
    """Where those entries and the held-out values go too: `tensorboard`, `trackio`, `wandb`, or what else transformers
    reports to."""


@options
class TrainingSettings(TrainingOptions):
    """How training runs, and where it keeps what it needs to go on."""

    save_every: PositiveInt | None = None
    """Updates between checkpoints; `None` saves none."""
    output_dir: Path | None = None
    """Where checkpoints go; `None` writes nothing."""
    resume: bool = False
    """Go on from the last checkpoint in `output_dir` where there is one."""
    seed: int = 0
    """Of the order of the terms and of all that is drawn."""
    name: str | None = None
    """What those call this training that it is reported to."""

    def __post_init__(self) -> None:
        if (self.save_every is not None or self.resume) and self.output_dir is None:
            raise GradatimError("checkpoints need a place: give the training settings an output_dir")
        if "tensorboard" in self.report_to and self.output_dir is None:
            raise GradatimError("TensorBoard's files need a place: give the training settings an output_dir")


@options
class ModelSize:
    """The shape of a small Llama; input and output embeddings are tied."""

    hidden: PositiveInt = 192
    """Width of the model."""
    layers: PositiveInt = 4
    """Layers."""
    heads: PositiveInt = 6
    """Attention heads of each layer."""
    feed_forward: PositiveInt = 512
    """Width of a layer's feed-forward part."""
    positions: PositiveInt = 256
    """Tokens that the model reads at most."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the initial weights; the default is made for widths of many hundreds, and
    1/sqrt(width) is the larger start that keeps a narrow model's activations alive."""


@options
class PretrainingSettings:
    """How a policy is trained from scratch."""

    demonstrations: PositiveInt = 200_000
    """Different problems with one solution each, of a task with fewer all of them; every one is seen once an epoch."""
    epochs: PositiveFloat = 1.0
    """Passes over them."""
    updates: NonNegativeInt | None = None
    """So many updates, in the place of `epochs`; 0 saves the model as it begins."""
    window: PositiveInt | None = None
    """Learn whole texts, problems included: rows of so many tokens are cut from them, written one after the other;
    `null` for a row each, of which the solution is learned."""
    batch_size: PositiveInt = 256
    """Rows for each update."""
    learning_rate: PositiveFloat = 2e-3
    """Its peak; a warm-up over the first 3 % of the updates, then a cosine to a tenth."""
    weight_decay: NonNegativeFloat = 0.05
    """How strongly weights are drawn to zero."""
    held_out: NonNegativeInt = 0
    """Problems of the test split whose solutions' perplexity is measured in the end; 0 for none."""
    seed: int = 0
    """Of the initial weights and of the order."""
    save_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """The type of the trained weights in their file."""
