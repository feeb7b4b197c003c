"""The section of a recipe that makes its rounds one training: many small ones, in which models learn in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from gradatim.part import parts_within
from gradatim.recipes.section import Section
from gradatim.training.settings import TrainingOptions

if TYPE_CHECKING:
    from gradatim.recipes.recipe import Learn, Recipe

_OF_ROUNDS = {
    "gradient_accumulation_steps": "online.updates says how many updates a pass has",
    "save_every": "online.save_every counts rounds",
    "evaluate_every": "online.evaluate_every counts rounds",
    "patience": "online.keep says which state is kept",
    "log_every": "every round is logged",
    "updates": "online.updates and rounds say how many there are",
    "report_to": "rounds.jsonl has every round",
    "dtype": "what learns is kept in float32",
    "fsdp": "one process trains",
    "deepspeed": "one process trains",
}
"""Options of a training that have no meaning in one of many rounds, and why."""


class OnlineOptions(Section):
    """Many small rounds as one training: in each, trees are grown with the models as they are and all that learns makes
    a few updates, in place. Optimizers, adapters and schedules last for all rounds."""

    problems: PositiveInt = 16
    """Problems of a round. Those of `problems.train` take their turns, each time in a new order."""
    updates: PositiveInt = 1
    """Updates into which a pass over a round's trees is divided, tree by tree; `training.epochs` says how many passes
    there are."""
    reuse: NonNegativeInt = 0
    """The trees of so many earlier rounds are learned from again in each round."""
    evaluate_every: PositiveInt = 10
    """Rounds between two evaluations on the validation problems, of which the first is before all rounds."""
    samples: PositiveInt = 4
    """Solutions for each validation problem that an evaluation samples."""
    keep: Literal["best", "last"] = "best"
    """Which state is saved in the end: that of the best evaluation, or the last; without validation problems the
    last."""
    roll_back: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Go back to the best weights and their optimizers where an evaluation is worse than the best one by more than
    this share of right solutions; `null` never does."""
    save_every: PositiveInt = 10
    """Rounds between two checkpoints. What is stopped goes on from the last one with the trees that are there, so that
    nothing is grown twice but in the round that was under way."""


def check_online(recipe: Recipe) -> None:
    """See that the rounds of a recipe can be one training.

    Raises:
        ValueError: if not.
    """
    for reason in _reasons(recipe):
        raise ValueError(reason)


def _reasons(recipe: Recipe) -> Iterator[str]:
    online, learners = recipe.online, recipe.learns_from_trees
    assert online is not None, "the recipe is an online one"
    if not learners or recipe.search is None:
        yield "online is for what learns from grown trees: add a search, and an entry of learn with data"
    if recipe.problems.train < online.problems:
        yield f"online.problems takes {online.problems} of {recipe.problems.train} problems: raise problems.train"
    if online.roll_back is not None and not recipe.problems.validation:
        yield "online.roll_back compares evaluations on validation problems: set problems.validation"
    for model, count in Counter(learn.model for learn in learners).items():
        of_model = [learn for learn in learners if learn.model == model]
        if count > 1 and any(learn.training.lora for learn in of_model):
            yield f"online trains {model} {count} times, with adapters: leave one entry of learn, or lora out of all"
        if count > 1 and recipe.model(model).dtype != "float32":
            yield f"online trains {model} {count} times, which needs it in float32: leave one entry of learn"
        yield from _of_model(recipe, model)
    for place, learn in enumerate(recipe.learn):
        if learn.demonstrations is None:
            yield from _of_learner(recipe, f"learn.{place}", learn)


def _of_model(recipe: Recipe, name: str) -> Iterator[str]:
    """Why a model cannot be run and trained in turns."""
    options, place = recipe.model(name), name if name == "policy" else f"models.{name}"
    if options.engine != "transformers":
        yield f"{place} learns online, which the transformers engine alone allows: set {place}.engine to that"
    if options.device_map is not None:
        yield f"{place} learns online, so that it lies on one device: leave {place}.device_map out"
    for part in parts_within(recipe.growing):
        if getattr(part, "model", None) == name and getattr(part, "layout", "auto") != "auto":
            yield f"{place} learns online and is read in its own layout: leave the layout of {part.name} out"


def _of_learner(recipe: Recipe, place: str, learn: Learn) -> Iterator[str]:
    """Why an entry of learn cannot learn in many small rounds."""
    assert recipe.online is not None, "the recipe is an online one"
    if learn.rounds != "every":
        yield f"{place} learns in the first round alone, and online all learn in every round: leave rounds out"
    if learn.begin is not None:
        yield f"{place} begins anew in every round, and online each goes on from the one before: leave begin out"
    if learn.stop_by not in (None, "nothing"):
        yield f"{place}.stop_by is of a training of its own: online.evaluate_every and online.keep say it here"
    recorded = learn.reference == "tree" and learn.model == "policy"
    if recipe.online.reuse and "reference" in learn.objective.needs and recorded:
        yield (
            f"{place}.reference is what the trees recorded, and with online.reuse they are of several policies: set it "
            "to initial"
        )
    if learn.training.epochs % 1:
        yield f"{place}.training.epochs are whole passes over the trees of a round, not {learn.training.epochs:g}"
    if learn.training.lora is not None and learn.training.lora.quantization is not None:
        yield f"{place}.training.lora.quantization is not of an online training (the model runs too): leave it out"
    for field in fields(TrainingOptions):
        if field.name in _OF_ROUNDS and getattr(learn.training, field.name) != field.default:
            yield f"{place}.training.{field.name} is not of an online training ({_OF_ROUNDS[field.name]}): leave it out"
