"""What a recipe that trains a policy from scratch may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from gradatim.part import PartOf
from gradatim.recipes.section import Section
from gradatim.tasks.generated import GeneratedTask


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
    """Different problems with one solution each; every one is seen once an epoch."""
    epochs: PositiveFloat = 1.0
    """Passes over them."""
    batch_size: PositiveInt = 256
    """Solutions for each update."""
    learning_rate: PositiveFloat = 2e-3
    """Its peak; a warm-up over the first 3 % of the updates, then a cosine to a tenth."""
    weight_decay: NonNegativeFloat = 0.05
    """How strongly weights are drawn to zero."""
    seed: int = 0
    """Of the initial weights and of the order."""


class PretrainRecipe(Section):
    """A policy trained from scratch on the own demonstrations of a task that generates its problems."""

    kind: Literal["pretrain"]
    """Training from scratch."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Of the recipe."""
    summary: str = ""
    """What the recipe is for, in one line."""
    task: Annotated[GeneratedTask, PartOf("tasks")]
    """The task whose demonstrations are learned; one that generates its problems."""
    size: ModelShape = ModelShape()
    """The shape of the model, a small Llama."""
    training: PretrainingOptions = PretrainingOptions()
    """How it is trained."""
