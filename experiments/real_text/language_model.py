"""A small Llama, trained from scratch on packed text, and its perplexity."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from experiments.real_text.documents import Solution
from experiments.real_text.progress import ReportLoss
from experiments.real_text.settings import LanguageModelSettings


class PackedText(Dataset[dict[str, torch.Tensor]]):
    """Windows of equal length, cut from documents that are written one after the other, each with its end.

    Every epoch shuffles the documents anew, so windows differ from epoch to epoch.
    """

    def __init__(self, documents: Sequence[Sequence[int]], window: int, count: int, seed: int) -> None:
        order = random.Random(seed)
        stream: list[int] = []
        while len(stream) < window * count:
            for document in order.sample(documents, len(documents)):
                stream.extend(document)
        self._windows = torch.tensor(stream[: window * count]).view(count, window)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._windows[index], "labels": self._windows[index]}


def new_language_model(tokenizer: PreTrainedTokenizerBase, settings: LanguageModelSettings) -> Any:
    """A Llama with random weights."""
    set_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def train_language_model(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Solution], settings: LanguageModelSettings, folder: Path
) -> Any:
    """Train on ``documents``; goes on from the last checkpoint in ``folder`` where there is one."""
    model = new_language_model(tokenizer, settings)
    updates = max(1, settings.tokens // (settings.window * settings.batch))
    texts = tokenizer([document.text for document in documents], add_special_tokens=False)["input_ids"]
    data = PackedText(
        [[*ids, tokenizer.eos_token_id] for ids in texts], settings.window, updates * settings.batch, settings.seed
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.learning_rate,
        weight_decay=0.05,
        warmup_steps=max(1, updates * 3 // 100),
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        adam_beta2=0.98,
        logging_steps=max(1, updates // 50),
        save_steps=max(1, updates // 10),
        save_total_limit=1,
        seed=settings.seed,
        use_cpu=not torch.accelerator.is_available(),
        bf16=True,
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data, callbacks=[ReportLoss("language model")])
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    return model.eval()


def perplexity(
    model: Any, tokenizer: PreTrainedTokenizerBase, documents: Sequence[Solution], batch: int = 16
) -> dict[str, float]:
    """How well the model predicts solutions (not their questions).

    Returns:
        Perplexity per token, bits per byte (which other tokenizers compare with), and the tokens that it rests on.
    """
    total, tokens, size = 0.0, 0, 0
    ordered = sorted(documents, key=lambda document: len(document.text))
    for start in range(0, len(ordered), batch):
        part = ordered[start : start + batch]
        prompts = tokenizer([document.prompt for document in part], add_special_tokens=False)["input_ids"]
        texts = tokenizer([document.text for document in part], add_special_tokens=False)["input_ids"]
        width = max(map(len, texts))
        ids = torch.tensor([text + [tokenizer.pad_token_id] * (width - len(text)) for text in texts])
        targets = ids.clone()
        for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            targets[row, : len(prompt)] = targets[row, len(text) :] = -100
            tokens += len(text) - len(prompt)
            size += len("".join(part[row].steps).encode())
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), targets[:, 1:].flatten(), reduction="sum"
        )
        total += float(losses)
    return {
        "perplexity": math.exp(total / tokens),
        "bits_per_byte": total / math.log(2) / size,
        "tokens": tokens,
    }
