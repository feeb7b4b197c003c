"""FlexAttention over packed rows equals attention by a mask of the whole row.

The fused kernels need an accelerator (`python -m benchmarks.flex_attention` checks them there). Here runs PyTorch's own
plain computation of the same operator, without its compiler, which asks the same mask and score functions; and the
blocks, which that ignores, equal those that PyTorch makes of the whole mask.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import flex_attention as flex
from transformers.masking_utils import chunked_causal_mask_function, sliding_window_causal_mask_function

from gradatim.engine.attention_pattern import EVERYTHING, AttentionPattern
from gradatim.engine.tree_row import TreeRow
from gradatim.errors import GradatimError
from gradatim.supervision.terms import Group, Term
from gradatim.training import TrainingRow, build_row, pack_row
from gradatim.training import attention as attention_module
from gradatim.training import flex_attention as flex_module
from gradatim.training import self_check as check_module
from gradatim.training.attention import quicker_attention
from gradatim.training.flex_attention import (
    FLEX_ATTENTION,
    TreeBlockMask,
    check_flex_attention,
    largest_difference,
    tree_block_mask,
    tree_flex_attention,
)
from gradatim.training.forward import token_log_probabilities
from gradatim.training.self_check import blockwise_attention
from model_families import model_of
from training_models import random_tree, tiny_model

KINDS = (
    "cohere2", "deepseek_v3", "falcon", "gemma2", "gemma3_text", "gemma4_text", "gpt2", "gpt_oss", "llama4_text",
    "olmo3", "phi3", "qwen2", "qwen3_moe",
)  # fmt: skip
PATTERNS = {
    "everything": EVERYTHING,
    "window": AttentionPattern(sliding_window_causal_mask_function(9)),
    "wide window": AttentionPattern(sliding_window_causal_mask_function(200)),
    "chunk": AttentionPattern(chunked_causal_mask_function(40, torch.zeros(1, dtype=torch.long))),
}


@pytest.fixture(autouse=True)
def plain_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's plain computation of the operator, and of its gradient, which it refuses on a CPU."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)


def row_of(seed: int, nodes: int = 30, longest: int = 40, trees: int = 1, prompt: int = 30) -> TreeRow:
    grown = [random_tree(seed + i, nodes=nodes, longest=longest, prompt=prompt) for i in range(trees)]
    packed = pack_row(node for tree in grown for node in tree.nodes)
    return TreeRow(packed.position_ids, packed.visible_until)


def training_row(size: int = 4) -> TrainingRow:
    row = build_row([Term((Group((n,)),)) for seed in range(size) for n in random_tree(seed, nodes=14).nodes[1:]])
    row.input_ids.remainder_(50).add_(5)  # the models of all kinds know few tokens
    row.token_ids.remainder_(50).add_(5)
    return row


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 60), st.integers(1, 3), st.sampled_from(list(PATTERNS))
)
def test_blocks_are_those_of_the_whole_mask(seed: int, nodes: int, longest: int, trees: int, pattern: str) -> None:
    row = row_of(seed, nodes, longest, trees)
    length = len(row.places)
    ours = tree_block_mask(row, PATTERNS[pattern]).mask
    seen = row.sees(PATTERNS[pattern], row.places, row.places)
    whole = flex.create_block_mask(lambda b, h, q, k: seen[q, k], 1, None, length, length, device="cpu")
    assert ours.shape == whole.shape
    for name in ("kv", "full_kv", "q", "full_q"):
        for part in ("num_blocks", "indices"):
            found, expected = getattr(ours, f"{name}_{part}"), getattr(whole, f"{name}_{part}")
            assert found.dtype == expected.dtype
            assert found.tolist() == expected.tolist()
    assert flex.create_mask(ours.mask_mod, 1, None, length, length, device="cpu")[0, 0].tolist() == seen.tolist()


def test_most_blocks_of_a_wide_tree_are_left_out() -> None:
    mask = tree_block_mask(row_of(0, trees=16), EVERYTHING).mask
    assert mask.sparsity() > 75


def of_mask(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """Attention by plain formulas, in the order (1, T, heads, size)."""
    key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (key, value))
    scores = query @ key.transpose(2, 3) * 0.3
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        scores = torch.cat((scores, sinks[None, :, None, None].expand(1, -1, len(seen), 1)), dim=3)
    return (scores.softmax(dim=-1)[..., : len(seen)] @ value).transpose(1, 2)


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("has_sinks", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_outputs_and_gradients_equal_plain_formulas(pattern: str, has_sinks: bool, softcap: float | None) -> None:
    row = row_of(3, nodes=14)
    torch.manual_seed(0)
    shapes = (4, 8), (2, 8), (2, 6)
    inputs = [torch.randn(1, heads, len(row.places), size, dtype=torch.float64) for heads, size in shapes]
    inputs += [torch.randn(4, dtype=torch.float64)] if has_sinks else []
    for each in inputs:
        each.requires_grad_()
    query, key, value, *sinks = inputs
    sink = sinks[0] if sinks else None
    mask = tree_block_mask(row, PATTERNS[pattern])
    found, _ = tree_flex_attention(torch.nn.Module(), query, key, value, mask, scaling=0.3, softcap=softcap, s_aux=sink)
    expected = of_mask(query, key, value, row.sees(PATTERNS[pattern], row.places, row.places), softcap, sink)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((each * weights).sum(), inputs) for each in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_models_are_exact(kind: str) -> None:
    """With windows, chunks, soft caps, sinks, values of another size than keys, and masks that the model cuts."""
    model, row = model_of(kind), training_row()
    assert len(row.input_ids) > 128
    with torch.no_grad():
        expected = token_log_probabilities(model, row)
        check_module._check(model, FLEX_ATTENTION)
        model.set_attn_implementation(FLEX_ATTENTION)
        torch.testing.assert_close(token_log_probabilities(model, row), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2"])
def test_a_model_that_is_trained_by_it_has_equal_gradients(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose scores are squashed, which otherwise attends eagerly."""
    model, row = tiny_model(family), training_row()
    expected = token_log_probabilities(model, row)
    expected.square().sum().backward()
    gradients = [each.grad.clone() for each in model.parameters()]
    model.zero_grad()
    own = model.config._attn_implementation
    monkeypatch.setattr(check_module, "quicker_attention", lambda model: FLEX_ATTENTION)
    with blockwise_attention(model):
        assert model.config._attn_implementation == FLEX_ATTENTION
        found = token_log_probabilities(model, row)
        found.square().sum().backward()
    assert model.config._attn_implementation == own
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        scale = gradient.abs().max().clamp(min=1.0)
        torch.testing.assert_close(parameter.grad / scale, gradient / scale, atol=1e-5, rtol=0)


def test_a_machine_whose_kernels_differ_or_fail_keeps_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    monkeypatch.setattr(check_module, "quicker_attention", lambda model: FLEX_ATTENTION)
    assert largest_difference(4, 2, 8, torch.device("cpu"), torch.float32) < 1e-5
    flex_module._fault.cache_clear()

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no compiler")

    def differs(query: Tensor, key: Tensor, value: Tensor, given: dict[str, Any]) -> Tensor:
        return flex.flex_attention(query, key, value, **given | {"block_mask": None})

    for attend, said in ((fails, "fails with RuntimeError"), (differs, "results differ by")):
        monkeypatch.setattr(flex_module, "_attend", attend)
        with pytest.raises(GradatimError, match=said):
            check_flex_attention(model.config, torch.device("cpu"), torch.float32)
        with blockwise_attention(model):
            assert model.config._attn_implementation == "sdpa"
        flex_module._fault.cache_clear()


def test_it_is_chosen_on_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere:
        device = torch.device("cuda")

    for family, own in (("llama", "sdpa"), ("gemma2", "eager")):
        model = tiny_model(family)
        assert model.config._attn_implementation == own
        monkeypatch.setattr(type(model), "parameters", lambda self: iter([Elsewhere]))
        assert quicker_attention(model) == FLEX_ATTENTION
        model.hf_device_map = {"model": 0, "lm_head": 1}
        assert quicker_attention(model) is None
        monkeypatch.undo()
    assert FLEX_ATTENTION in attention_module._IMPLEMENTATIONS


def test_what_it_does_not_know_is_refused() -> None:
    row = row_of(1, nodes=3)
    query = torch.randn(1, 2, len(row.places), 8)
    mask = tree_block_mask(row, EVERYTHING)
    assert isinstance(mask, TreeBlockMask)
    for name, option in (("position_bias", {"position_bias": query}), ("dropout", {"dropout": 0.1, "softcap": 1.0})):
        with pytest.raises(GradatimError, match=name):
            tree_flex_attention(torch.nn.Module(), query, query, query, mask, **option)


def test_weights_that_are_dropped_are_those_of_a_mask() -> None:
    row = row_of(1, nodes=9)
    query = torch.randn(1, 2, len(row.places), 8)
    torch.manual_seed(0)
    found = tree_flex_attention(torch.nn.Module(), query, query, query, tree_block_mask(row, EVERYTHING), dropout=0.5)[
        0
    ]
    torch.manual_seed(0)
    seen = row.sees(EVERYTHING, row.places, row.places)
    expected = torch.nn.functional.scaled_dot_product_attention(query, query, query, seen, dropout_p=0.5)
    torch.testing.assert_close(found, expected.transpose(1, 2))
