"""Heads on a causal language model: what else it says of a token than which one comes next.

A head is a linear layer, or a small perceptron, on the decoder's last hidden state. Heads are trained with the model or
alone, and saved in its folder in a file of their own, so that any other program loads the folder as the language model
that it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gradatim.engine.decoder import decoder_of, is_given
from gradatim.engine.head_shape import HeadShape
from gradatim.errors import GradatimError

HEADS_FILE = "heads.safetensors"
_ATTRIBUTE = "gradatim_heads"


def attach_heads(model: Any, shapes: Mapping[str, HeadShape]) -> None:
    """Add heads to a causal language model; those that it has stay.

    The last layer of a new head is all zeros, so it says one half of every step (the sigmoid of 0); a layer before it
    is drawn from the same seed always, so that training is the same each time.

    Args:
        model: the model.
        shapes: of the heads, by their names.

    Raises:
        GradatimError: if it has a head of such a name and another shape.
    """
    inner = plain_model(model)
    like = inner.get_output_embeddings().weight
    heads = heads_of(model)
    for name, shape in shapes.items():
        if name not in heads:
            heads[name] = _new_head(like.shape[-1], shape).to(like.device, _dtype(inner))
        elif (known := _shape(heads[name])) not in (None, shape):
            raise GradatimError(
                f"the model has a head {name!r} of {_in_words(known)}, and one of {_in_words(shape)} is asked for; ask "
                "for the same, or take the model without its heads"
            )
    setattr(inner, _ATTRIBUTE, nn.ModuleDict(heads))


def _new_head(width: int, shape: HeadShape) -> nn.Module:
    last = nn.Linear(shape.hidden or width, shape.outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    if shape.hidden is None:
        return last
    first = nn.Linear(width, shape.hidden)
    nn.init.normal_(first.weight, std=width**-0.5, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(first.bias)
    return nn.Sequential(first, nn.GELU(), last)


def heads_of(model: Any) -> dict[str, nn.Module]:
    """The heads that a model has, by name."""
    return dict(getattr(plain_model(model), _ATTRIBUTE, {}).items())


def head_modules(model: Any) -> dict[str, str]:
    """The names of a model's heads among its modules, by the heads' own, as adapters need them to train heads whole."""
    return {name: f"{_ATTRIBUTE}.{name}" for name in heads_of(model)}


def plain_model(model: Any) -> Any:
    """The transformers model within what training laid around it: a distributed wrapper, peft's adapters."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def head_values(head: nn.Module, hidden: Tensor) -> Tensor:
    """What a head says of hidden states, (..., width): (...) or (..., outputs) in float32, whatever else is computed in
    lower precision."""
    with torch.autocast(hidden.device.type, enabled=False):
        weight = next(head.parameters())
        values: Tensor = head(hidden.to(weight)).float()
    return values.squeeze(-1)


@contextmanager
def reading_heads(model: Any, names: Iterable[str], *, alone: bool = False) -> Iterator[dict[str, Tensor]]:
    """Note what heads say during a forward pass.

    Args:
        model: the model, or what is laid around it.
        names: of the heads.
        alone: whether nothing is learned from the model's own outputs.

    Yields a dictionary that holds, after the pass, the values of each head at every token, (batch, tokens) or (batch,
    tokens, outputs). The heads are run within the model's own forward pass, as whatever divides a model among devices
    expects.
    """
    heads = {name: heads_of(model)[name] for name in names}
    found: dict[str, Tensor] = {}

    def note(module: nn.Module, given: Any, output: Any) -> None:
        if not is_given(output):
            found.update((name, head_values(head, output[0])) for name, head in heads.items())

    def return_them(module: nn.Module, given: Any, output: Any) -> None:
        # Data parallelism waits for gradients of the weights that what a model returns depends on, and of no others.
        output["hidden_states"] = tuple(found.values())
        if alone:
            output["logits"] = output["logits"].detach()

    hooks = []
    if heads:
        plain = plain_model(model)
        hooks += [decoder_of(plain).register_forward_hook(note), plain.register_forward_hook(return_them)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def without_heads(model: Any) -> Iterator[None]:
    """The model without its heads, as ``save_pretrained`` should see it, while this lasts."""
    inner = plain_model(model)
    heads = getattr(inner, _ATTRIBUTE, None)
    if heads is not None:
        delattr(inner, _ATTRIBUTE)
    try:
        yield
    finally:
        if heads is not None:
            setattr(inner, _ATTRIBUTE, heads)


def save_heads(model: Any, folder: Path) -> None:
    """Write a model's heads into its folder; nothing where it has none."""
    heads = heads_of(model)
    if heads:
        save_file(nn.ModuleDict(heads).state_dict(), folder / HEADS_FILE)


def saved_heads(folder: Path) -> list[str]:
    """The names of the heads that a model's folder holds."""
    if not (folder / HEADS_FILE).is_file():
        return []
    with safe_open(folder / HEADS_FILE, framework="pt") as file:
        return sorted({name.partition(".")[0] for name in file.keys()})  # noqa: SIM118 (it is no mapping)


def load_heads(model: Any, folder: Path) -> None:
    """Attach the heads that a model's folder holds, if it does."""
    if not (folder / HEADS_FILE).is_file():
        return
    weights = load_file(folder / HEADS_FILE)
    attach_heads(model, {name: _shape_of(name, weights) for name in saved_heads(folder)})
    getattr(plain_model(model), _ATTRIBUTE).load_state_dict(weights)


def _shape(head: nn.Module) -> HeadShape | None:
    """The shape of a head; ``None`` where something is laid around it."""
    if isinstance(head, nn.Linear):
        return HeadShape(head.out_features)
    if not isinstance(head, nn.Sequential):
        return None
    first, *_, last = (each for each in head if isinstance(each, nn.Linear))
    return HeadShape(last.out_features, hidden=first.out_features)


def _in_words(shape: HeadShape | None) -> str:
    assert shape is not None
    outputs = f"{shape.outputs} {'output' if shape.outputs == 1 else 'outputs'}"
    return outputs if shape.hidden is None else f"{outputs} and a hidden layer of width {shape.hidden}"


def _shape_of(name: str, weights: Mapping[str, Tensor]) -> HeadShape:
    if f"{name}.bias" in weights:
        return HeadShape(len(weights[f"{name}.bias"]))
    first, last = weights[f"{name}.0.bias"], weights[f"{name}.2.bias"]
    return HeadShape(len(last), hidden=len(first))


def _dtype(model: Any) -> torch.dtype:
    """That of the model's weights; of quantized ones, that of what is computed."""
    return next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)
