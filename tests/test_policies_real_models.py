"""What people load: chat models, adapters, half precision, models spread over devices."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.text.prompts import ChatFormat
from gradatim.tree import Node, Problem, Tree
from tiny_models import CONFIGS, byte_pair_tokenizer, prompt, tiny_causal, word_tokenizer

PROMPT = prompt(4, 5, 6)
GREEDY = Sampling(temperature=0.0, max_step_tokens=6, max_steps=3)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save(folder: Path, family: str = "llama", seed: int = 0) -> Path:
    tiny_causal(family, seed=seed).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def save_adapter(folder: Path, seed: int, **shape: Any) -> Path:
    torch.manual_seed(seed)
    config = CONFIGS["llama"](vocab_size=40, max_position_embeddings=256, **shape)
    base = AutoModelForCausalLM.from_config(config)
    settings = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(base, settings).save_pretrained(folder)
    return folder


def rollout(policy: TransformersPolicy, sampling: Sampling = GREEDY, problem: Problem | None = None) -> Node:
    tree = Tree(problem or Problem("p", PROMPT))
    return asyncio.run(policy.extend([tree.root], steps=None, sampling=sampling))[0]


def log_probabilities(node: Node) -> list[float]:
    return [value for each in node.path()[1:] for value in each.step.log_probabilities]


def test_a_conversation_is_continued_token_by_token(tmp_path: Path) -> None:
    tokenizer = byte_pair_tokenizer(["What is 1 + 1? It is 2."], size=300)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    model = tiny_causal("llama", vocabulary=len(tokenizer), positions=512)
    model.generation_config.eos_token_id = [1, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    chat = ChatFormat(system="Be brief.", examples=(("What is 1 + 1?", "It is 2."),))
    problem = Problem("p", "Question: What is 2 + 2?\nAnswer:", data={"question": "What is 2 + 2?"})
    policy = TransformersPolicy.from_pretrained(tmp_path, chat=chat)
    leaf = rollout(
        policy, Sampling(temperature=0.0, max_step_tokens=12, max_steps=4, boundary=Delimiter(at=("e", "\n"))), problem
    )

    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "It is 2."},
        {"role": "user", "content": "What is 2 + 2?"},
    ]
    expected = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        conversation, add_generation_prompt=True, return_dict=False
    )
    assert list(leaf.tree.root.step.tokens) == expected
    written = leaf.tokens[len(expected) :]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    generated = plain.generate(torch.tensor([expected]), max_new_tokens=len(written), do_sample=False)[0]
    assert generated[len(expected) :].tolist() == written
    assert leaf.tree.budget.read("policy") == len(expected), "the conversation is read once, whatever steps follow"


def test_a_chat_format_needs_a_chat_template(tmp_path: Path) -> None:
    with pytest.raises(GradatimError, match="the tokenizer has no chat template"):
        rollout(TransformersPolicy.from_pretrained(save(tmp_path), chat=ChatFormat()))
    policy = TransformersPolicy.from_pretrained(tmp_path, chat=ChatFormat())
    policy.tokenizer.chat_template = "{{ raise_exception('no system prompt, please') }}"
    with pytest.raises(GradatimError, match="chat template refuses this conversation: no system prompt, please"):
        rollout(policy)


def test_adapters_are_switched_without_reloading(tmp_path: Path) -> None:
    base = save(tmp_path / "base")
    adapters = {name: save_adapter(tmp_path / name, seed) for seed, name in enumerate(("one", "two"), 1)}
    policy = TransformersPolicy.from_pretrained(base, adapter=adapters["one"])
    found = {"one": log_probabilities(rollout(policy))}
    policy.load_adapter(adapters["two"], "two")
    found["two"] = log_probabilities(rollout(policy))
    policy.use_adapter("default")
    assert log_probabilities(rollout(policy)) == found["one"]
    policy.use_adapter(None)
    found["base"] = log_probabilities(rollout(policy))
    policy.use_adapter("two")
    assert log_probabilities(rollout(policy)) == found["two"]
    assert found["base"] == log_probabilities(rollout(TransformersPolicy.from_pretrained(base)))
    assert len({tuple(values) for values in found.values()}) == 3
    for name, folder in adapters.items():
        loaded = AutoModelForCausalLM.from_pretrained(base)
        loaded.load_adapter(folder)
        merged = TransformersPolicy(loaded, word_tokenizer())
        assert log_probabilities(rollout(merged)) == pytest.approx(found[name], abs=1e-5)


def test_adapters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    policy = TransformersPolicy.from_pretrained(save(tmp_path / "base"))
    before = log_probabilities(rollout(policy))
    for name, shape in {"wider": {"hidden_size": 64}, "deeper": {"num_hidden_layers": 3}}.items():
        with pytest.raises(GradatimError, match="was made for another base"):
            policy.load_adapter(save_adapter(tmp_path / name, 1, **shape), name)
    gpt2 = get_peft_model(tiny_causal("gpt2"), LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    gpt2.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(GradatimError, match="was made for another base"):
        policy.load_adapter(tmp_path / "gpt2", "gpt2")
    with pytest.raises(GradatimError, match="there is no folder"):
        policy.load_adapter(tmp_path / "nothing", "nothing")
    with pytest.raises(GradatimError, match="has no adapter 'three'"):
        policy.use_adapter("three")
    policy.use_adapter(None)
    assert log_probabilities(rollout(policy)) == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("family", ["llama_grouped", "gemma2", "mistral", "gpt2"])
def test_half_precision_is_near_single(tmp_path: Path, family: str) -> None:
    save(tmp_path, family)
    single, half = (
        rollout(TransformersPolicy.from_pretrained(tmp_path, dtype=dtype), Sampling(temperature=0.0, max_step_tokens=3))
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert single.path()[1].step.tokens[0] == half.path()[1].step.tokens[0]
    assert log_probabilities(half)[0] == pytest.approx(log_probabilities(single)[0], abs=0.1)


def test_a_spread_model_computes_what_the_whole_one_does(tmp_path: Path) -> None:
    save(tmp_path)
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu"}
    places |= {"model.rotary_emb": "cpu", "lm_head": "disk"}
    spread = TransformersPolicy.from_pretrained(tmp_path, device_map=places)
    assert any(parameter.device.type == "meta" for parameter in spread.model.parameters())
    whole = TransformersPolicy.from_pretrained(tmp_path)
    assert log_probabilities(rollout(spread)) == pytest.approx(log_probabilities(rollout(whole)), abs=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_quantized_loading_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(GradatimError, match="pip install bitsandbytes"):
        TransformersPolicy.from_pretrained(save(tmp_path), quantization="4bit")


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_quantized_model_runs(tmp_path: Path, bits: Any) -> None:
    config = CONFIGS["llama"](vocab_size=64, max_position_embeddings=256)
    config.hidden_size, config.intermediate_size, config.head_dim = 128, 256, 32  # whole blocks of 64 weights
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    word_tokenizer(64).save_pretrained(tmp_path)
    leaf = rollout(TransformersPolicy.from_pretrained(tmp_path, quantization=bits))
    assert all(value <= 0 for value in log_probabilities(leaf))
