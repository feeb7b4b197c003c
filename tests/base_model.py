"""A base model of plain documents: it answers and goes on to a next question, since no text that it read ended."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

WORDS = ["<pad>", "<eos>", "<unk>", "\n", "Question:", "Answer:", " What", " is", " +", "?", "####", " ="]
NUMBERS = [f" {number}" for number in range(20)]
PAIRS = list(product(range(6), repeat=2))


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word. It has an end token, as every tokenizer has, which no document holds."""
    words = {word: index for index, word in enumerate([*WORDS, *NUMBERS])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(pattern=Regex(r"\n|\?| ?[^\s?]+"), behavior="isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def question(left: int, right: int) -> str:
    return f"What is {left} + {right}?"


def solution(left: int, right: int) -> str:
    return f" {left} + {right} = {left + right}\n#### {left + right}"


def write_problems(path: Path) -> None:
    """All sums of two small numbers, in GSM8K's layout."""
    rows = [{"question": question(*pair), "answer": solution(*pair)} for pair in PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train_base_model(folder: Path) -> None:
    """Train it on "Question: ... Answer: ..." documents that follow each other without end, and save it."""
    torch.manual_seed(0)
    source = random.Random(0)
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=128, pad_token_id=0, bos_token_id=None, eos_token_id=1,
        initializer_range=0.1,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    updates = 140
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=updates)
    documents = [words(f"Question: {question(*pair)}\nAnswer:\n{solution(*pair)}\n\n")["input_ids"] for pair in PAIRS]
    for _ in range(updates):
        rows = [[token for document in source.sample(documents, 3) for token in document] for _ in range(16)]
        ids = torch.tensor([row[:60] for row in rows])
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    words.save_pretrained(folder)
