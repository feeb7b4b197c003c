"""A model in two halves: its decoder makes hidden states of tokens, its output layers make outputs of hidden states."""

from __future__ import annotations

from collections.abc import Iterator
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
    with _giving(decoder_of(model), hidden[None]):
        outputs: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
    return outputs


@contextmanager
def _giving(decoder: Any, hidden: Tensor) -> Iterator[None]:
    """Let a decoder give these hidden states, whatever it is called with."""
    own = decoder.__dict__.get("forward")
    decoder.forward = lambda *_, **__: _Given(last_hidden_state=hidden)
    try:
        yield
    finally:
        if own is None:
            del decoder.forward
        else:
            decoder.forward = own


class _Given(BaseModelOutputWithPast):
    """A decoder's output that has nothing but hidden states, whatever else a model asks it for."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
