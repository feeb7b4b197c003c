"""Train a small language model from scratch on a task's own demonstrations.

This is how the policies that ship with the package were made: ``gradatim pretrain RECIPE`` repeats it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from gradatim.part import content_of
from gradatim.store.files import write_json
from gradatim.tasks.demonstrations import Demonstration, Demonstrator
from gradatim.training.checkpoints import CheckpointTrainer, last_checkpoint
from gradatim.training.saving import save_model
from gradatim.training.settings import ModelSize, PretrainingSettings
from gradatim.training.similar_lengths import SimilarLengthSampler


class SolutionDataset(Dataset[dict[str, list[int]]]):
    """Prompt and solution as one row; the loss is over the solution and its end."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], solutions: Sequence[str]) -> None:
        prompt_ids = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        solution_ids = tokenizer(list(solutions), add_special_tokens=False)["input_ids"]
        self.rows = [
            (prompt, [*solution, tokenizer.eos_token_id])
            for prompt, solution in zip(prompt_ids, solution_ids, strict=True)
        ]

    @property
    def lengths(self) -> list[int]:
        """The tokens of each row."""
        return [len(prompt) + len(solution) for prompt, solution in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        prompt, solution = self.rows[index]
        return {"input_ids": prompt + solution, "labels": [-100] * len(prompt) + solution}


class TextDataset(Dataset[dict[str, torch.Tensor]]):
    """Rows of equal length, cut from texts that are written one after the other; the loss is over every token.

    Each time over, the texts are shuffled anew, so rows differ from epoch to epoch.
    """

    def __init__(self, texts: Sequence[Sequence[int]], window: int, rows: int, seed: int) -> None:
        order = random.Random(seed)
        stream: list[int] = []
        while len(stream) < window * rows:
            for text in order.sample(texts, len(texts)):
                stream.extend(text)
        self.rows = torch.tensor(stream[: window * rows], dtype=torch.long).view(rows, window)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def collate(rows: Sequence[dict[str, list[int]]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad rows on the right. Padding comes after every real token, so causal attention never sees it."""
    width = max(len(row["input_ids"]) for row in rows)

    def padded(key: str, fill: int) -> torch.Tensor:
        return torch.tensor([row[key] + [fill] * (width - len(row[key])) for row in rows])

    return {"input_ids": padded("input_ids", pad_token_id), "labels": padded("labels", -100)}


def perplexity(
    model: Any, tokenizer: PreTrainedTokenizerBase, pairs: Iterable[Demonstration], batch: int = 16
) -> dict[str, float]:
    """How well a model predicts solutions (neither their problems nor their ends).

    Returns:
        ``perplexity`` per token, ``bits_per_byte`` (which other tokenizers compare with), and the ``tokens`` that it
        rests on.
    """
    found = sorted(pairs, key=lambda pair: len(pair[1]))
    rows = SolutionDataset(tokenizer, [problem.prompt for problem, _ in found], [text for _, text in found])
    loss, tokens = 0.0, 0
    for start in range(0, len(rows), batch):
        part = [rows[index] for index in range(start, min(start + batch, len(rows)))]
        packed = collate([{**row, "labels": [*row["labels"][:-1], -100]} for row in part], tokenizer.pad_token_id)
        with torch.no_grad():
            logits = model(input_ids=packed["input_ids"].to(model.device)).logits[:, :-1].flatten(0, 1).float()
        labels = packed["labels"][:, 1:].flatten().to(logits.device)
        loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        tokens += int((labels != -100).sum())
    size = sum(len(text.encode()) for _, text in found)
    return {"perplexity": math.exp(loss / tokens), "bits_per_byte": loss / math.log(2) / size, "tokens": tokens}


class _Pretrainer(CheckpointTrainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not isinstance(self.train_dataset, SolutionDataset):
            return super()._get_train_sampler(train_dataset)
        return SimilarLengthSampler(self.train_dataset.lengths, self.args.per_device_train_batch_size)


def pretrain(
    task: Demonstrator,
    tokenizer: PreTrainedTokenizerBase,
    size: ModelSize,
    settings: PretrainingSettings,
    output: Path,
) -> dict[str, object]:
    """Train a policy for ``task`` and save it with its tokenizer to ``output``; continues from its last checkpoint.

    Returns the log: settings, parameters and the loss along the way; also written to ``output/training_log.json``.
    """
    set_seed(settings.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            intermediate_size=size.feed_forward,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=size.positions,
            initializer_range=size.initializer_range,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            # eager is twice as fast as sdpa for rows as short as single solutions, in bfloat16 on a CPU
            attn_implementation="eager" if settings.window is None else "sdpa",
        )
    )
    pairs = list(islice(task.demonstrations("train"), settings.demonstrations))
    solutions = SolutionDataset(tokenizer, [problem.prompt for problem, _ in pairs], [text for _, text in pairs])
    per_row = 1 if settings.window is None else settings.window / (sum(solutions.lengths) / len(pairs))  # solutions
    steps = settings.updates
    if steps is None:
        steps = int(len(pairs) * settings.epochs / per_row / settings.batch_size)
    dataset: Dataset[Any] = solutions
    if settings.window is not None:
        texts = [[*prompt, *solution] for prompt, solution in solutions.rows]
        dataset = TextDataset(texts, settings.window, steps * settings.batch_size, settings.seed)
    arguments = TrainingArguments(
        output_dir=str(output / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=max(1, steps * 3 // 100),
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        adam_beta2=0.98,
        max_grad_norm=1.0,
        logging_steps=max(1, steps // 50),
        save_steps=max(1, steps // 10),
        save_total_limit=1,
        report_to=[],
        disable_tqdm=False,
        seed=settings.seed,
        use_cpu=not torch.cuda.is_available(),
        bf16=True,
    )
    trainer = _Pretrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=default_data_collator
        if settings.window is not None
        else lambda rows: collate(rows, tokenizer.pad_token_id),
    )
    checkpoint = last_checkpoint(output / "checkpoints")
    if steps:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    log: dict[str, object] = {
        "task": {key: value for key, value in content_of(task).items() if key not in ("name", "seed")},
        "size": asdict(size),
        "settings": asdict(settings),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "loss": [
            {"step": entry["step"], "loss": float(entry["loss"])}
            for entry in trainer.state.log_history
            if "loss" in entry
        ],
    }

    if settings.held_out:
        log["held_out"] = perplexity(model.eval(), tokenizer, islice(task.demonstrations("test"), settings.held_out))

    def write_log(folder: Path) -> None:
        write_json(folder / "training_log.json", log)

    save_model(model, tokenizer, output, dtype=getattr(torch, settings.save_dtype), also=write_log)
    return log
