"""Training a policy from scratch, as the shipped one was made."""

from __future__ import annotations

import asyncio
import json
import math
import random
import statistics
from collections import Counter
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gradatim import Tree
from gradatim.models import resolve_model
from gradatim.policies.transformers import TransformersPolicy
from gradatim.recipes import PretrainRecipe, load_recipe
from gradatim.tasks.countdown import Countdown
from gradatim.tasks.word_problems import WordProblems
from gradatim.training.from_scratch import SolutionDataset, TextDataset, collate, perplexity, pretrain
from gradatim.training.settings import ModelSize, PretrainingSettings
from gradatim.training.similar_lengths import SimilarLengthSampler

SIZE = ModelSize(hidden=16, layers=1, heads=2, feed_forward=32)
SETTINGS = PretrainingSettings(demonstrations=64, epochs=2, batch_size=8)


@pytest.mark.parametrize("task", [Countdown(numbers=3), WordProblems(operations=(1, 2), distractors=(0, 0))], ids=type)
def test_a_policy_from_scratch_learns_and_can_be_used(task: Countdown | WordProblems, tmp_path: Path) -> None:
    tokenizer = task.tokenizer()
    log = pretrain(task, tokenizer, SIZE, SETTINGS, tmp_path)
    losses = [entry["loss"] for entry in log["loss"]]
    assert log["steps"] == 16
    assert losses[-1] < losses[0]
    assert json.loads((tmp_path / "training_log.json").read_text()) == log
    policy = TransformersPolicy.from_pretrained(tmp_path)
    tree = Tree(task.problems("test", 1)[0])
    assert asyncio.run(policy.extend([tree.root], 2))
    again = pretrain(task, tokenizer, SIZE, SETTINGS, tmp_path)  # finished: nothing is trained again
    assert [entry["loss"] for entry in again["loss"]] == losses


@pytest.mark.parametrize("spread", [0.01, 0.25])
def test_initial_weights_are_spread_as_the_size_says(spread: float, tmp_path: Path) -> None:
    task = Countdown(numbers=3)
    size = ModelSize(hidden=64, layers=1, heads=2, feed_forward=64, initializer_range=spread)
    pretrain(
        task, task.tokenizer(), size, PretrainingSettings(demonstrations=8, batch_size=8, learning_rate=1e-9), tmp_path
    )
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"):
        assert float(weights[name].float().std()) == pytest.approx(spread, rel=0.1)
    assert json.loads((tmp_path / "config.json").read_text())["initializer_range"] == spread


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 3))
def test_batches_of_similar_length_hold_every_row_once(lengths: list[int], batch_size: int, epoch: int) -> None:
    sampler, again = (SimilarLengthSampler(lengths, batch_size) for _ in range(2))
    again.set_epoch(epoch)
    orders = [list(sampler) for _ in range(epoch + 1)]
    assert len(sampler) == len(lengths)
    assert all(sorted(order) == list(range(len(lengths))) for order in orders)
    assert list(again) == orders[epoch]  # training that goes on meets what it would have met


def test_batches_of_similar_length_are_hardly_padded_and_not_in_order_of_length() -> None:
    generator = random.Random(0)
    lengths = [generator.randint(20, 180) for _ in range(1600)]
    order = list(SimilarLengthSampler(lengths, 16))
    longest = [max(lengths[row] for row in order[at : at + 16]) for at in range(0, 1600, 16)]
    assert 16 * sum(longest) < 1.1 * sum(lengths)
    assert abs(statistics.correlation(longest[1:], longest[:-1])) < 0.4


def test_only_the_solution_is_learned_and_padding_is_not() -> None:
    policy = TransformersPolicy.from_pretrained("shipped:countdown")
    dataset = SolutionDataset(policy.tokenizer, ["Make 3 from 1 2\n"], [" 2 + 1 = 3 | 3"])
    row = dataset[0]
    prompt = len(policy.tokenizer("Make 3 from 1 2\n")["input_ids"])
    assert row["labels"][:prompt] == [-100] * prompt
    assert row["labels"][prompt:] == row["input_ids"][prompt:]
    assert row["input_ids"][-1] == policy.tokenizer.eos_token_id
    shorter = {"input_ids": [5, 6], "labels": [-100, 6]}
    batch = collate([row, shorter], pad_token_id=0)
    assert batch["labels"][1].tolist() == [-100, 6] + [-100] * (len(row["labels"]) - 2)


@pytest.mark.parametrize("name", ["countdown", "word-problems"])
def test_a_shipped_policy_is_what_its_recipe_describes(name: str) -> None:
    recipe = load_recipe(f"{name}-policy")
    assert isinstance(recipe, PretrainRecipe)
    log = json.loads((Path(resolve_model(f"shipped:{name}")) / "training_log.json").read_text())
    assert asdict(recipe.size).items() <= log["size"].items()
    assert log["settings"].items() <= asdict(recipe.training).items()
    task = type(recipe.task)(**log["task"])  # an option that came since has its default
    assert task.difficulty == recipe.task.difficulty


def test_windows_hold_every_text_once_an_epoch() -> None:
    windows = TextDataset([[i] * 3 for i in range(8)], window=12, rows=4, seed=0)
    ids = torch.cat([windows[i]["input_ids"] for i in range(len(windows))])
    assert Counter(ids[:24].tolist()) == Counter(ids[24:].tolist()) == Counter(dict.fromkeys(range(8), 3))


def test_whole_texts_are_learned_in_windows(tmp_path: Path) -> None:
    task = Countdown(numbers=3)
    settings = PretrainingSettings(demonstrations=64, window=32, updates=8, batch_size=4, save_dtype="float32")
    log = pretrain(task, task.tokenizer(), SIZE, settings, tmp_path)
    assert log["steps"] == 8
    assert log["loss"][-1]["loss"] < log["loss"][0]["loss"]
    assert load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"].dtype == torch.float32
    untrained = pretrain(
        task, task.tokenizer(), SIZE, PretrainingSettings(demonstrations=8, updates=0), tmp_path / "untrained"
    )
    assert (untrained["steps"], untrained["loss"]) == (0, [])


def test_perplexity_is_that_of_each_solution_alone() -> None:
    task = Countdown(numbers=3)
    tokenizer, pairs = task.tokenizer(), list(islice(task.demonstrations("test"), 5))
    model = AutoModelForCausalLM.from_pretrained(resolve_model("shipped:countdown")).float()
    loss, tokens = 0.0, 0
    for problem, solution in pairs:
        prompt, own = (tokenizer.encode(text, add_special_tokens=False) for text in (problem.prompt, solution))
        with torch.no_grad():
            predicted = model(input_ids=torch.tensor([prompt + own])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        loss -= float(predicted.gather(1, torch.tensor(own)[:, None]).sum())
        tokens += len(own)
    found = perplexity(model, tokenizer, pairs, batch=2)
    assert found["tokens"] == tokens
    assert found["perplexity"] == pytest.approx(math.exp(loss / tokens), rel=1e-4)
    size = sum(len(solution.encode()) for _, solution in pairs)
    assert found["bits_per_byte"] == pytest.approx(loss / math.log(2) / size, rel=1e-4)
