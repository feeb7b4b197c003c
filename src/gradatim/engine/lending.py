"""One copy of a model's weights for whoever runs it and whoever trains it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from gradatim.engine.tree_attention import TREE_ATTENTION
from gradatim.errors import GradatimError

_OWN = "gradatim_"  # what the names of this library's attention implementations begin with
_loaded_with: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


class RunsModel(Protocol):
    """What runs a model on trees: a policy, a scorer, a reader, a tree model."""

    @property
    def model(self) -> PreTrainedModel: ...

    def refresh(self) -> None:
        """Forget what is cached and set the model up again."""
        ...


def replace_attention(model: Any) -> None:
    """Have a model attend over trees, as the engine runs it; :func:`trainable` sets that aside.

    Raises:
        GradatimError: if the model's attention cannot be replaced.
    """
    before = _attention(model)
    if not before.startswith(_OWN):
        _loaded_with[model] = before
    try:
        model.set_attn_implementation(TREE_ATTENTION)
    except (ValueError, AttributeError, ImportError) as error:
        raise GradatimError(
            f"{type(model).__name__} does not let its attention be replaced ({error}); "
            "use a decoder that supports transformers' attention interface"
        ) from error


@contextmanager
def trainable(*runners: RunsModel) -> Iterator[Any]:
    """The model of a policy, scorer or reader as it was loaded, to be trained in place, while this lasts.

    Afterwards whoever runs it has forgotten what was cached under the old weights, and runs the new ones: nothing is
    written, read or held twice. Meanwhile the runners must not run, but one that an evaluation during training runs and
    refreshes itself.

    Args:
        runners: all that run the model.

    Raises:
        GradatimError: if they do not run the same one.
    """
    models = {id(runner.model): runner.model for runner in runners}
    if len(models) != 1:
        raise GradatimError(f"one model is trained at a time, but {len(models)} are lent; lend each by itself")
    (model,) = models.values()
    model.set_attn_implementation(_loaded_with.get(model, "sdpa"))
    try:
        yield model
    finally:
        for runner in runners:
            runner.refresh()


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Give a model's weights another type, and nothing else: buffers such as the frequencies of positions are computed
    in float32, and would be rounded for good."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _attention(model: Any) -> str:
    implementation: str = model.config.get_text_config()._attn_implementation or ""
    return implementation
