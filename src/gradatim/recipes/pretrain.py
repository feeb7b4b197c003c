"""What a recipe that trains a policy from scratch may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gradatim.part import PartOf
from gradatim.recipes.section import Section
from gradatim.tasks.demonstrations import Teacher


class ModelShape(Section):
    """See :class:`gradatim.training.from_scratch.ModelSize`."""

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
    """Standard deviation of the initial weights; 1/sqrt(width) suits narrow models."""


class PretrainingOptions(Section):
    """See :class:`gradatim.training.from_scratch.PretrainingSettings`."""

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
    seed: int = 0
    """Of the initial weights and of the order."""
    save_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """The type of the trained weights in their file."""


class PretrainRecipe(Section):
    """A policy trained from scratch on a task's own demonstrations."""

    kind: Literal["pretrain"]
    """Training from scratch."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Of the recipe."""
    summary: str = ""
    """What the recipe is for, in one line."""
    task: Annotated[Teacher, PartOf("tasks")]
    """The task whose demonstrations are learned; one that has some, and a tokenizer."""
    size: ModelShape = ModelShape()
    """The shape of the model, a small Llama."""
    training: PretrainingOptions = PretrainingOptions()
    """How it is trained."""
