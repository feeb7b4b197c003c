"""What a recipe that trains a policy from scratch may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gradatim.part import PartOf
from gradatim.recipes.section import Section
from gradatim.tasks.demonstrations import Teacher
from gradatim.training.settings import ModelSize, PretrainingSettings


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
    size: ModelSize = ModelSize()
    """The shape of the model, a small Llama."""
    training: PretrainingSettings = PretrainingSettings()
    """How it is trained."""
