"""Tiny random models of each family and tiny tokenizers, for tests that run in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY = 40
END = 1
BOUNDARY = 3

_SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 8, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": END,
}  # fmt: skip
_GROUPED = _SHAPE | {"num_key_value_heads": 2}
_SLIDING = {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]}

CONFIGS: dict[str, Any] = {
    "llama": lambda **sizes: LlamaConfig(**_SHAPE | sizes),
    "llama_grouped": lambda **sizes: LlamaConfig(**_GROUPED | sizes),
    "qwen2": lambda **sizes: Qwen2Config(**_GROUPED | sizes),
    "qwen3": lambda **sizes: Qwen3Config(**_GROUPED | sizes),
    "gpt2": lambda vocab_size, max_position_embeddings: GPT2Config(
        vocab_size=vocab_size, n_positions=max_position_embeddings, n_embd=32, n_layer=2, n_head=4,
        pad_token_id=0, bos_token_id=None, eos_token_id=END,
    ),
    "gemma": lambda **sizes: GemmaConfig(**_GROUPED | sizes),
    "gemma2": lambda **sizes: Gemma2Config(
        **_GROUPED | _SLIDING | sizes, query_pre_attn_scalar=8, attn_logit_softcapping=2.0, final_logit_softcapping=5.0
    ),
    "gemma3": lambda **sizes: Gemma3TextConfig(**_GROUPED | _SLIDING | sizes, query_pre_attn_scalar=8),
    "mistral": lambda **sizes: MistralConfig(**_GROUPED | sizes, sliding_window=5),
}  # fmt: skip
FAMILIES = tuple(CONFIGS)


def tiny_causal(family: str = "llama", *, vocabulary: int = VOCABULARY, positions: int = 256, seed: int = 0) -> Any:
    """A random causal language model in evaluation mode, its weights large enough that context matters."""
    return _random(
        AutoModelForCausalLM, CONFIGS[family](vocab_size=vocabulary, max_position_embeddings=positions), seed
    )


def tiny_classifier(family: str = "llama", *, labels: int = 1, vocabulary: int = VOCABULARY, seed: int = 0) -> Any:
    """A random token classifier in evaluation mode."""
    config = CONFIGS[family](vocab_size=vocabulary, max_position_embeddings=256)
    config.num_labels = labels
    return _random(AutoModelForTokenClassification, config, seed)


def _random(auto_class: Any, config: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    model = auto_class.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
    return model.eval()


def learned_by_heart(texts: Sequence[str], *, ended: bool = False) -> tuple[Any, PreTrainedTokenizerFast]:
    """A model that has learned texts by heart, byte by byte (and the end token behind them if they are ``ended``), and
    its tokenizer, of which each byte is a token."""
    tokenizer = byte_pair_tokenizer([], size=260)
    model = tiny_causal("llama", vocabulary=len(tokenizer), positions=256)
    rows = [tokenizer(text)["input_ids"] + [END] * ended for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    labels = ids.masked_fill(torch.arange(longest) >= torch.tensor([[len(row)] for row in rows]), -100)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, weight_decay=0.0)
    for _ in range(600):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.03:
            break
    return model.eval(), tokenizer


def word_tokenizer(size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """One token a word: ids 0 to 3 are ``<pad>``, ``<eos>``, ``<unk>`` and a line end, the others `` 4``, `` 5``, …"""
    words = ["<pad>", "<eos>", "<unk>", "\n", *(f" {number}" for number in range(4, size))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern=Regex(r" ?[^\s]+|\n"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def byte_pair_tokenizer(texts: Sequence[str], size: int = 400) -> PreTrainedTokenizerFast:
    """A byte-level byte-pair tokenizer trained on ``texts``; every byte is a token, so any output is possible."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<pad>", "<eos>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def prompt(*numbers: int) -> str:
    """The text of which :func:`word_tokenizer` makes the tokens ``numbers``."""
    return "".join("\n" if number == BOUNDARY else f" {number}" for number in numbers)
