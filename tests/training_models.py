"""Tiny random models and trees for the training tests."""

from __future__ import annotations

import random
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from gradatim.tree import EndReason, Node, Problem, Step, Tree

VOCABULARY = 97
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip

CONFIGS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**_SHAPE),
    "qwen2": lambda: Qwen2Config(**_SHAPE, use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "qwen3": lambda: Qwen3Config(**_SHAPE),
    "mistral": lambda: MistralConfig(**_SHAPE, sliding_window=6),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2
    ),
    "gemma": lambda: GemmaConfig(**_SHAPE),
    "gemma2": lambda: Gemma2Config(
        **_SHAPE, sliding_window=5, query_pre_attn_scalar=8, final_logit_softcapping=3.0, attn_logit_softcapping=2.0
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **_SHAPE, sliding_window=5, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8
    ),
}


def tiny_model(family: str = "llama", seed: int = 0) -> Any:
    """A random model in evaluation mode, its weights large enough that context matters."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.15)
    return model.eval()


def random_tree(seed: int, *, nodes: int = 12, prompt: int = 4, observations: bool = True, longest: int = 5) -> Tree:
    """A random tree with random log-probabilities."""
    source = random.Random(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(source.randrange(3, VOCABULARY) for _ in range(source.randint(low, high)))

    tree = Tree(Problem(f"problem-{seed}", "prompt"), prompt_tokens=tokens(prompt, prompt), seed=seed)
    while len(tree) < nodes:
        step = tokens(1, longest)
        observation = tokens(1, 3) if observations and source.random() < 0.3 else ()
        recorded = tuple(-source.random() for _ in step)
        parent = source.choice(tree.nodes)
        tree.add(parent, Step(step, "s", recorded, EndReason.BOUNDARY, observation, "o" * len(observation)))
    return tree


def path_log_probabilities(model: Any, node: Node) -> torch.Tensor:
    """Log-probability of each of the node's step tokens, (n,), from the node's own path alone."""
    before = [] if node.parent is None else node.parent.tokens
    ids = torch.tensor([before + list(node.step.tokens)])
    logits = model(input_ids=ids).logits[0].float()
    start = len(before)
    return torch.log_softmax(logits[start - 1 : -1], -1).gather(-1, ids[0, start:, None])[:, 0]
