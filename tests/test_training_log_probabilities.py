"""Log-probabilities that are computed part by part equal those of all logits at once, and so do their gradients."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradatim.engine.head_shape import HeadShape
from gradatim.engine.heads import attach_heads
from gradatim.errors import GradatimError
from gradatim.objectives import Sft
from gradatim.supervision.terms import Group, Term
from gradatim.training import LoraSettings, TrainingRow, build_row
from gradatim.training import forward as forward_module
from gradatim.training.adapters import add_adapters
from gradatim.training.forward import measured, token_log_probabilities
from gradatim.training.log_probabilities import note_halves, predictions_at_once, selected_log_probabilities
from gradatim.training.self_check import check_training
from model_families import families, model_of
from training_models import VOCABULARY, random_tree, tiny_model

AT_ONCE = 7


def row_of(seed: int = 3, nodes: int = 12) -> TrainingRow:
    return build_row([Term((Group((node,)),)) for node in random_tree(seed, nodes=nodes, longest=4).nodes[1:]])


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets of how many predictions logits are computed at once."""

    def set_size(size: int | None) -> None:
        monkeypatch.setattr(forward_module, "predictions_at_once", lambda model: size)

    return set_size


def with_gradients(model: Any, row: TrainingRow) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities, and the gradients of a weighted sum of them."""
    model.zero_grad()
    values = token_log_probabilities(model, row)
    weights = torch.randn(len(values), generator=torch.Generator().manual_seed(0), dtype=values.dtype)
    (weights * values).sum().backward()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return values.detach(), gradients


def assert_equal(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    tolerance = 1e-11 if expected[0].dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found[0], expected[0], atol=tolerance, rtol=0)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        scale = gradient.abs().max().clamp(min=1.0)
        torch.testing.assert_close(found[1][name] / scale, gradient / scale, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", families())
def test_every_kind_of_model_is_exact(kind: str, in_parts: Any) -> None:
    """With soft caps, factors, biases and tied weights; in float64, where the kind computes in it."""
    row = build_row([Term((Group((node,)),)) for node in random_tree(1, nodes=7, longest=4).nodes[1:]])
    row.input_ids.remainder_(50).add_(5)
    row.token_ids.remainder_(50).add_(5)
    for dtype in (torch.float64, torch.float32):
        model = model_of(kind).to(dtype)
        try:
            check_training(model)
        except GradatimError:
            continue
        assert predictions_at_once(model) is not None, "its log-probabilities need all logits at once"
        in_parts(None)
        expected = with_gradients(model, row)
        in_parts(AT_ONCE)
        assert_equal(with_gradients(model, row), expected)
        return


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 14), st.integers(1, 60))
def test_any_division_is_exact(seed: int, nodes: int, size: int) -> None:
    model = tiny_model("gemma2").double()
    row = row_of(seed, nodes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward_module, "predictions_at_once", lambda model: None)
        expected = with_gradients(model, row)
        patch.setattr(forward_module, "predictions_at_once", lambda model: size)
        assert_equal(with_gradients(model, row), expected)


def test_adapters_of_the_output_layer_and_heads_are_exact(in_parts: Any) -> None:
    model = tiny_model("llama")
    attach_heads(model, {"value": HeadShape(1)})
    model = add_adapters(model, LoraSettings(rank=2, target_modules=("q_proj", "lm_head")), heads=("value",)).double()
    with torch.no_grad():
        for each in model.parameters():
            each.normal_(0.0, 0.15, generator=torch.Generator().manual_seed(each.numel()))
    row = row_of()
    in_parts(None)
    expected = with_gradients(model, row)
    assert any("lm_head" in name and "lora" in name for name in expected[1])
    objective = _SftWithValue()
    values = measured(model, row, objective).heads["value"]
    in_parts(AT_ONCE)
    assert_equal(with_gradients(model, row), expected)
    torch.testing.assert_close(measured(model, row, objective).heads["value"], values, atol=0, rtol=0)


class _SftWithValue(Sft):
    heads: ClassVar[dict[str, HeadShape]] = {"value": HeadShape(1)}


def test_no_more_than_a_part_of_the_logits_is_kept(in_parts: Any) -> None:
    model, row = tiny_model("llama"), row_of(nodes=30)
    assert len(row.predictors) > 4 * AT_ONCE
    largest = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal largest
        if tensor.shape[-1:] == (VOCABULARY,) and tensor.shape != (model.config.hidden_size, VOCABULARY):
            largest = max(largest, tensor.numel())
        return tensor

    kept = {}
    for size in (None, AT_ONCE):
        in_parts(size)
        largest = 0
        with torch.autograd.graph.saved_tensors_hooks(note, note):
            with_gradients(model, row)
        kept[size] = largest // VOCABULARY
    assert kept[None] == len(row.predictors)
    assert 0 < kept[AT_ONCE] <= AT_ONCE


def test_lower_precision_gives_the_same_as_all_logits_at_once(in_parts: Any) -> None:
    model, row = tiny_model("llama"), row_of()
    in_parts(None)
    with torch.autocast("cpu", torch.bfloat16):
        expected = with_gradients(model, row)
    in_parts(AT_ONCE)
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(model, row)
    torch.testing.assert_close(found[0], expected[0], atol=0, rtol=0)
    for name, gradient in expected[1].items():  # sums over parts are rounded otherwise
        torch.testing.assert_close(found[1][name], gradient, atol=0.02 * float(gradient.abs().max()), rtol=0)


def test_parts_are_as_large_as_the_output_layer_at_least() -> None:
    model = tiny_model("llama")
    assert predictions_at_once(model) is None  # nobody has checked it
    check_training(model)
    assert predictions_at_once(model) == (1 << 26) // VOCABULARY
    large = tiny_model("llama")
    large.config.vocab_size, large.config.hidden_size = 150_000, 4096
    note_halves(large)
    assert predictions_at_once(large) == 4096


def test_selected_log_probabilities_are_those_of_the_softmax() -> None:
    logits = torch.randn(5, 11, dtype=torch.float64, requires_grad=True)
    rows, columns = torch.tensor([0, 0, 3, 4, 0]), torch.tensor([1, 1, 5, 10, 2])
    torch.testing.assert_close(selected_log_probabilities(logits, rows, columns), logits.log_softmax(-1)[rows, columns])
    assert torch.autograd.gradcheck(lambda given: selected_log_probabilities(given, rows, columns), logits)
