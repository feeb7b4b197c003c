"""Layers that are computed again in the backward pass see the row as they did in the forward pass."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from gradatim.supervision.terms import Group, Term
from gradatim.training import LoraSettings, TrainingRow, build_row
from gradatim.training import forward as forward_module
from gradatim.training.adapters import add_adapters
from gradatim.training.forward import token_log_probabilities
from gradatim.training.self_check import blockwise_attention
from gradatim.training.trainer import disable_dropout
from model_families import model_of
from training_models import CONFIGS, random_tree, tiny_model

KINDS = ("cohere2", "deepseek_v3", "falcon", "gemma4_text", "gpt_oss", "llama4_text", "olmo3", "qwen3_moe")


def row_of() -> TrainingRow:
    nodes = [node for seed in range(4) for node in random_tree(seed, nodes=14, longest=4).nodes[1:]]
    row = build_row([Term((Group((node,)),)) for node in nodes])
    assert len(row.input_ids) > 128  # several blocks
    row.input_ids.remainder_(50).add_(5)  # the models of all kinds know few tokens
    row.token_ids.remainder_(50).add_(5)
    return row


def read(model: Any, row: TrainingRow, context: AbstractContextManager[None]) -> tuple[Tensor, list[Tensor], int]:
    """Log-probabilities of a row, gradients of a weighted sum of them, and how often the first layer ran."""
    model.zero_grad()
    layer = next(each for name, each in model.named_modules() if name.endswith(("layers.0", "h.0")))
    runs = []
    with context:
        hook = next(layer.children()).register_forward_pre_hook(lambda module, inputs: runs.append(module))
        values = token_log_probabilities(model, row)
        values.mul(torch.linspace(-1, 1, len(values))).sum().backward()
        hook.remove()
    return values.detach(), [each.grad.clone() for each in model.parameters() if each.grad is not None], len(runs)


def assert_recomputed(model: Any, row: TrainingRow, *, blocks: bool, reentrant: bool) -> None:
    def context() -> AbstractContextManager[None]:
        return blockwise_attention(model) if blocks else nullcontext()

    model.train()
    disable_dropout(model)
    expected = read(model, row, context())
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    found = read(model, row, context())
    assert (expected[2], found[2]) == (1, 2)
    torch.testing.assert_close(found[0], expected[0], atol=0, rtol=0)
    for gradient, other in zip(found[1], expected[1], strict=True):
        scale = other.abs().max().clamp(min=1.0)
        torch.testing.assert_close(gradient / scale, other / scale, atol=1e-6, rtol=0)


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("family", CONFIGS)
def test_layers_computed_again_are_exact(family: str, reentrant: bool, blocks: bool) -> None:
    assert_recomputed(tiny_model(family), row_of(), blocks=blocks, reentrant=reentrant)


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_models_are_exact(kind: str) -> None:
    """Not by PyTorch's older way: in it, layers of Gemma 4 that share keys and values give no gradient of them."""
    assert_recomputed(model_of(kind), row_of(), blocks=True, reentrant=False)


@pytest.mark.parametrize("reentrant", [False, True])
def test_adapters_and_logits_in_parts_are_exact(reentrant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_module, "predictions_at_once", lambda model: 20)
    model = add_adapters(tiny_model("llama"), LoraSettings(rank=2, target_modules=("q_proj", "down_proj", "lm_head")))
    with torch.no_grad():
        for each in model.parameters():
            if each.requires_grad:
                each.normal_(0.0, 0.15)
    model.enable_input_require_grads()  # as transformers' trainer does: the older way needs inputs with a gradient
    assert_recomputed(model, row_of(), blocks=True, reentrant=reentrant)
