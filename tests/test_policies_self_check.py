"""A model that computes something else over trees than over single paths does not run; another does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForTokenClassification

from gradatim.engine import self_check
from gradatim.engine.path_length import UNBOUNDED, longest_path
from gradatim.engine.query_scale import longest_row
from gradatim.engine.row_attention import Block, RowPlan
from gradatim.engine.self_check import checked_tree_model
from gradatim.engine.tree_attention import attending, tree_attention
from gradatim.engine.tree_row import TreeRow
from gradatim.errors import GradatimError
from gradatim.objectives import Sft
from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.supervision import path_term
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.training import train
from gradatim.training.self_check import check_training
from gradatim.training.settings import TrainingSettings
from gradatim.tree import Problem, Step, Tree
from model_families import config_of, model_of, outcome_of
from tiny_models import prompt, word_tokenizer

SETTINGS = TrainingSettings(learning_rate=1e-3, tokens_per_batch=60)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "_outcomes", {})


def run(model: Any) -> None:
    checked_tree_model(model, 1 << 20)


class CountingRows(nn.Module):
    """Embeds a token with its place in the row of the pass, as models do whose positions nobody can give."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight
        places = torch.randn(64, embedding.embedding_dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("places", places.to(embedding.weight.dtype))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(nn.functional.embedding(ids, self.weight) + self.places[: ids.shape[1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_that_are_counted_along_the_row_are_noticed(dtype: torch.dtype) -> None:
    model = model_of("llama").to(dtype)
    model.model.embed_tokens = CountingRows(model.model.embed_tokens)
    for use in (run, check_training):
        with pytest.raises(GradatimError, match=r"'llama' cannot be .*\(they differ by [\d.]+ of the spread"):
            use(model)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "llama4_text", "gpt_oss", "granitemoe", "deepseek_v3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_in_few_bits_is_no_reason(kind: str, dtype: torch.dtype) -> None:
    model = model_of(kind).to(dtype)
    check_training(model)
    run(model)


def test_attention_without_its_sinks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradatim.engine.branch_attention._sinks", lambda sinks, like: like)
    with pytest.raises(GradatimError, match="'gpt_oss' cannot be run by the engine: over a small tree"):
        run(model_of("gpt_oss"))


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text", "llama4_text"])
def test_wide_windows_are_passed_too_and_left_as_they_were(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {"sliding_window": 100} if kind != "llama4_text" else {"attention_chunk_size": 100}
    model = model_of(kind, **wide).train()
    before = model.config.to_dict()
    check_training(model)
    assert model.config.to_dict() == before
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    monkeypatch.setattr("gradatim.engine.attention_pattern.AttentionPattern.sees", everything)
    with pytest.raises(GradatimError, match="over a small tree"):
        run(model)


def everything(_: Any, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return keys[:, None, :] <= queries[:, :, None]


def test_a_model_is_read_once_for_its_configuration() -> None:
    check_training(model_of("qwen3"))
    again = model_of("qwen3")
    again.register_forward_hook(lambda *_: pytest.fail("the model was read again"))
    check_training(again)


def test_what_a_small_tree_would_not_show_is_refused_by_name() -> None:
    model = model_of("llama")
    model.config.block_window = 4096
    with pytest.raises(GradatimError, match="its block_window of 4096 tokens is of no kind that could be checked"):
        run(model)


def test_an_option_that_is_not_known_is_refused() -> None:
    layer = nn.Module()
    layer.layer_idx = 0  # type: ignore[assignment]
    vectors = torch.randn(1, 2, 3, 4)
    places = torch.arange(3)
    plan = RowPlan(TreeRow(places, torch.full((3,), 3)), places, [Block(slice(0, 3), [], places[:0])])
    with attending(plan, torch.arange(3)[None]):
        tree_attention(layer, vectors, vectors, vectors, None, sliding_window=4)
        with pytest.raises(GradatimError, match="attends more than once"):
            tree_attention(layer, vectors, vectors, vectors, None)
        with pytest.raises(GradatimError, match="position_bias"):
            tree_attention(layer, vectors, vectors, vectors, None, position_bias=torch.zeros(3))


def test_refusals_come_before_any_work() -> None:
    """Of a policy, of a reward model, and of a model to be trained; a model is left as it was."""
    with pytest.raises(GradatimError, match=r"'lfm2' cannot be run by the engine: it has layers of the type 'conv'"):
        TransformersPolicy(model_of("lfm2"), word_tokenizer(64))
    encoder = AutoModelForTokenClassification.from_config(config_of("bert", num_labels=1))
    with pytest.raises(GradatimError, match="depends on the tokens that follow"):
        ProcessRewardScorer(encoder)
    model = model_of("bloom")
    with pytest.raises(GradatimError, match="'bloom' cannot be run by the engine: its layers do not call"):
        run(model)
    assert model.config._attn_implementation == "eager"
    tree = Tree(Problem("p", ""), prompt_tokens=(5, 6))
    for token in (7, 8):
        tree.add(tree.root, Step((token, 9), "", (-1.0, -1.0)))
    with pytest.raises(GradatimError, match="'bloom' cannot be trained on packed trees"):
        train(model, Sft(), [path_term(node) for node in tree.nodes[1:]], SETTINGS)


def test_a_process_without_weights_leaves_the_check_to_the_one_that_has_them() -> None:
    with torch.device("meta"):
        check_training(model_of("llama"))
        with pytest.raises(GradatimError, match="layers of the type 'conv'"):
            check_training(model_of("lfm2"))


# Limits of length


def long_rope(original: int) -> dict[str, Any]:
    factors = {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": original, **factors}
    return {"original_max_position_embeddings": original, "rope_parameters": rope}


def test_long_rotary_frequencies_end_paths_at_the_original_length() -> None:
    assert longest_path(config_of("phi3", **long_rope(24))) == 24
    assert longest_path(config_of("phi3")) == 128
    assert longest_path(config_of("falcon_mamba")) == UNBOUNDED
    model = model_of("phi3", **long_rope(24))
    result = outcome_of(lambda: model_of("phi3", **long_rope(24)))  # whose paths are shorter
    assert max(result.engine.difference, result.training.difference) <= 1e-5
    assert not result.engine.refused
    assert not result.training.refused
    tree = Tree(Problem("p", ""), prompt_tokens=tuple(range(5, 26)))
    tree.add(tree.root, Step((7, 9, 11, 12), "", (-1.0,) * 4))
    with (
        pytest.raises(GradatimError, match="every solution is longer than 24 tokens"),
        pytest.warns(UserWarning, match="are left out"),
    ):
        train(model, Sft(), [path_term(node) for node in tree.nodes[1:]], SETTINGS)
    policy = TransformersPolicy(
        model, word_tokenizer(64), sampling=Sampling(max_step_tokens=50, boundary=Delimiter(at=("never",)))
    )
    node = asyncio.run(policy.extend([Tree(Problem("p", prompt(*range(5, 25)))).root], steps=None))[0]
    assert len(node.tokens) <= 24


def test_queries_that_llama_4_scales_are_scaled_by_place_in_the_path() -> None:
    result = outcome_of(lambda: model_of("llama4_text", floor_scale=4))
    assert result.engine.refused is None
    assert result.engine.difference <= 1e-5
    assert result.training.refused is not None
    assert longest_row(config_of("llama4_text", floor_scale=40)) == 39
    assert longest_row(config_of("llama4_text", floor_scale=40, attn_temperature_tuning=False)) is None
    model = model_of("llama4_text", floor_scale=40)
    tree = Tree(Problem("p", ""), prompt_tokens=(5, 6))
    for token in (7, 8):
        tree.add(tree.root, Step((token,) * 20, "", (-1.0,) * 20))
    with pytest.raises(GradatimError, match="a packed row is longer than 39 tokens"):
        train(model, Sft(), [path_term(node) for node in tree.nodes[1:]], SETTINGS)
