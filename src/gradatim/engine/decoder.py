"""A model in two halves: its decoder makes hidden states of tokens, its output layers make outputs of hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast


def decoder_of(model: PreTrainedModel) -> Any:
    """The part of a model that gives the last hidden states, all before its output layers."""
    decoder: Any = model.get_decoder()
    if not isinstance(decoder, PreTrainedModel):  # an output layer that is called so
        decoder = model.base_model
    while decoder is model or decoder.get_output_embeddings() is not None:  # a wrapper that has output layers itself
        decoder = decoder.model
    return decoder


def outputs_of(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """What a model's output layers make of last hidden states: (n, hidden size) to (n, outputs).

    Those are logits of the next token, or the labels of a token classifier. The model's own forward pass computes them,
    with all that it does to them (factors, soft caps), while its decoder gives the hidden states without computing.
    """
    ids = torch.zeros((1, len(hidden)), dtype=torch.long, device=hidden.device)
    given = _Given(last_hidden_state=hidden[None])
    with replaced_forward(decoder_of(model), lambda *_, **__: given):
        # Not the model's call, whose hooks belong to a whole pass: sharded training gathers weights in them.
        outputs: Tensor = model.forward(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
    return outputs


@contextmanager
def noted_hidden_states(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Note the last hidden states, (batch, tokens, hidden size), of each forward pass."""
    found: list[Tensor] = []
    hook = decoder_of(model).register_forward_hook(lambda module, inputs, output: found.append(output[0]))
    try:
        yield found
    finally:
        hook.remove()


@contextmanager
def replaced_forward(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module's call run another function."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def is_given(output: Any) -> bool:
    """Whether a decoder was made to give an output without computing, by :func:`outputs_of`."""
    return isinstance(output, _Given)


class _Given(BaseModelOutputWithPast):
    """A decoder's output that has nothing but hidden states, whatever else a model asks it for."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
