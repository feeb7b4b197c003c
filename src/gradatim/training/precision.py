"""What training lays around a model's forward pass and leaves there: mixed precision, checkpoints of activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def plain_forward(model: Any) -> Iterator[None]:
    """Let the model compute in the type of its weights while this lasts, as it did before it was to be trained."""
    wrapped, plain = vars(model).get("forward"), vars(model).get("_original_forward")
    if plain is None:
        yield
        return
    model.forward = plain
    try:
        yield
    finally:
        model.forward = wrapped


@contextmanager
def mixed_precision_removed(model: Any) -> Iterator[None]:
    """Leave the model as it was before accelerate prepared it, once this is over; another training prepares it anew."""
    before = vars(model).get("forward")
    try:
        yield
    finally:
        if vars(model).pop("_original_forward", None) is not None:
            del model.forward
            if before is not None:
                model.forward = before
        vars(model).pop("_is_accelerate_prepared", None)


@contextmanager
def activation_checkpoints(model: Any, wanted: bool) -> Iterator[None]:
    """Let the model compute what its layers hold once more in the backward pass, in the place of keeping it, while this
    lasts; nothing where that is not ``wanted``."""
    if not wanted:
        yield
        return
    layers = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
    before = [module.gradient_checkpointing for module in layers]
    # transformers has a new name for it
    new = hasattr(model, "activation_checkpointing_enable")
    name = "activation_checkpointing" if new else "gradient_checkpointing"
    getattr(model, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})
    try:
        yield
    finally:
        for module, value in zip(layers, before, strict=True):
            module.gradient_checkpointing = value
