"""What is an adapter's folder is loaded with its base, or refused for the true reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gradatim.engine.adapters import adapters, load_adapter
from gradatim.engine.loading import load_merged_model, load_model
from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.policies.transformers import TransformersPolicy
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.training import load_process_reward_model

BASE = resolve_model("shipped:countdown")
TOKENS = torch.tensor([[1, 5, 9, 20, 33, 7]])


def base_model() -> Any:
    return load_model(AutoModelForCausalLM, BASE, dtype=torch.float32)


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **options)


def save(folder: Path, config: PeftConfig, model: Any = None) -> Path:
    """An adapter whose weights are all at random, as after training."""
    torch.manual_seed(3)
    adapted = get_peft_model(base_model() if model is None else model, config)
    for name, weight in adapted.named_parameters():
        if any(part in name for part in ("lora_", "ia3_")):
            weight.data += 0.1 * torch.randn_like(weight)
    adapted.save_pretrained(folder)
    return folder


def change(folder: Path, **values: Any) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(TOKENS).logits
    return result


CONFIGS = {
    "lora": lora(),
    "dora": lora(use_dora=True),
    "rslora": lora(use_rslora=True, lora_alpha=3),
    "with embeddings": lora(modules_to_save=["embed_tokens", "lm_head"]),
    "ia3": IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_adapter_gives_what_peft_gives(kind: str, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = save(tmp_path / "adapter", CONFIGS[kind])
    expected = logits(PeftModel.from_pretrained(base_model(), folder))
    assert float((expected - logits(base_model())).abs().max()) > 1e-3
    for load in (load_model, load_merged_model):
        found = logits(load(AutoModelForCausalLM, folder, dtype=torch.float32))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    policy = TransformersPolicy.from_pretrained(folder)
    assert policy.tokenizer.vocab_size == TransformersPolicy.from_pretrained(BASE).tokenizer.vocab_size


def tried(folder: Path) -> str:
    """Why neither the folder nor its adapter on a loaded policy can be used."""
    with pytest.raises(GradatimError) as alone:
        TransformersPolicy.from_pretrained(folder)
    policy = TransformersPolicy.from_pretrained(BASE)
    with pytest.raises(GradatimError) as beside:
        policy.load_adapter(folder, "x")
    assert str(alone.value) == str(beside.value)
    assert "\n" not in str(alone.value)
    return str(alone.value)


@pytest.mark.parametrize("config", [PromptTuningConfig, PrefixTuningConfig])
def test_trained_prompts_are_refused_as_such(config: Any, tmp_path: Path) -> None:
    folder = save(tmp_path / "prompt", config(task_type="CAUSAL_LM", num_virtual_tokens=3))
    assert "which puts trained vectors before the text" in tried(folder)


def test_what_is_wrong_with_an_adapter_is_said_as_it_is(tmp_path: Path) -> None:
    judge = save(
        tmp_path / "judge",
        LoraConfig(target_modules=["q_proj"], task_type="TOKEN_CLS"),
        load_process_reward_model(BASE),
    )
    assert "was made for a classifier (TOKEN_CLS), such as a reward model" in tried(judge)
    with pytest.raises(GradatimError, match=r"is an adapter of .* merge it into its base"):
        ProcessRewardScorer.from_pretrained(judge)
    assert "of rank 4, and its adapter_config.json says 8" in tried(change(save(tmp_path / "r", lora(r=4)), r=8))
    assert "kind 'NEWEST', which the installed peft does not know" in tried(
        change(save(tmp_path / "n", lora()), peft_type="NEWEST")
    )
    other = change(save(tmp_path / "other", lora()), target_modules=["c_attn"])
    assert "was made for another base" in tried(other)
    damaged = save(tmp_path / "damaged", lora())
    (damaged / "adapter_model.safetensors").write_bytes(b"x" * 20)
    assert "cannot load the adapter" in tried(damaged)
    old = save(tmp_path / "old", lora())
    torch.save(load_file(old / "adapter_model.safetensors"), old / "adapter_model.bin")
    (old / "adapter_model.safetensors").unlink()
    assert "holds no adapter_model.safetensors" in tried(old)
    for content in ("{", "[]", "[" * 100_000):
        (old / "adapter_config.json").write_text(content)
        assert "adapter_config.json of" in tried(old)
        assert "is damaged" in tried(old)
    moved = change(save(tmp_path / "moved", lora()), base_model_name_or_path="/nowhere/model")
    with pytest.raises(GradatimError, match=r"no folder '/nowhere/model'.*It is the base of the adapter"):
        TransformersPolicy.from_pretrained(moved)
    TransformersPolicy.from_pretrained(BASE).load_adapter(moved, "x")  # the base is here
    grown = base_model()
    grown.resize_token_embeddings(grown.config.vocab_size + 64)
    grown = save(tmp_path / "grown", lora(modules_to_save=["embed_tokens", "lm_head"]), grown)
    assert "was made for a model of other sizes" in tried(grown)


def test_a_refused_adapter_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = base_model()
    before = logits(model)
    for folder in (
        change(save(tmp_path / "r", lora(r=4)), r=8),
        change(save(tmp_path / "o", lora()), target_modules=["c_attn"]),
        save(tmp_path / "p", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)),
    ):
        with pytest.raises(GradatimError):
            load_adapter(model, folder, "refused")
        assert adapters(model) == []
    torch.testing.assert_close(logits(model), before)
