"""Training a policy from scratch, as the shipped one was made."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gradatim import Tree
from gradatim.models import resolve_model
from gradatim.policies.transformers import TransformersPolicy
from gradatim.recipes import PretrainRecipe, load_recipe
from gradatim.tasks.countdown import Countdown
from gradatim.tasks.word_problems import WordProblems
from gradatim.training.from_scratch import ModelSize, PretrainingSettings, SolutionDataset, collate, pretrain

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
    assert recipe.size.model_dump().items() <= log["size"].items()
    assert recipe.training.model_dump().items() <= log["settings"].items()
    assert json.loads(json.dumps(recipe.task.difficulty)) == log["task"]
