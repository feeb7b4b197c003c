"""A run has each model's weights in memory once, and what was trained goes on without being read again."""

from __future__ import annotations

import gc
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import PreTrainedModel

from gradatim.engine.loading import load_model
from gradatim.run import Progress, models, run_recipe
from gradatim.run.models import Models
from gradatim.store import TreeStore
from small_runs import small_recipe

SFT = {"name": "sft", "training": {"learning_rate": 1e-3, "epochs": 2, "tokens_per_batch": 128}}


def run(folder: Path, **changes: Any) -> None:
    recipe = small_recipe(problems={"train": 3, "test": 2}, evaluation={"samples": 4, "pass_at": [1]}, **changes)
    run_recipe(recipe, folder, progress=Progress(Console(file=io.StringIO())))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The weights that are read, in order."""
    seen: list[str] = []

    def counted(load: Any, place: int) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            seen.append(Path(arguments[place]).name)
            return load(*arguments, **options)

        return wrapped

    for name, place in {"placed": 1, "load_merged_model": 1, "load_process_reward_model": 0}.items():
        monkeypatch.setattr(models, name, counted(getattr(models, name), place))
    return seen


def test_a_trained_policy_searches_on_without_being_read(loads: list[str], tmp_path: Path) -> None:
    run(tmp_path, judge=None, objective=SFT, rounds=2)
    assert loads == ["countdown", "countdown"], "once for everything, and once to measure the policy before"
    assert len(list(TreeStore(tmp_path / "trees" / "round-2.jsonl"))) == 3


def test_weights_are_in_memory_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the models train, and while searches run, there is one policy and one reward model at most."""
    most: list[int] = []

    def looking(method: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            result = method(*arguments, **options)
            gc.collect()
            most.append(sum(isinstance(each, PreTrainedModel) and _is_whole(each) for each in gc.get_objects()))
            return result

        return wrapped

    gc.collect()
    before = sum(isinstance(each, PreTrainedModel) and _is_whole(each) for each in gc.get_objects())
    for name in ("policy", "reward_model", "train"):
        monkeypatch.setattr(Models, name, looking(getattr(Models, name)))
    run(tmp_path, objective=SFT)
    assert max(most) - before <= 2


def test_what_runs_on_is_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, or a run that was stopped and one that was not would differ."""
    from transformers import AutoModelForCausalLM

    kept: list[Any] = []
    train = Models.train

    def keeping(self: Models, name: str, *arguments: Any, **options: Any) -> None:
        train(self, name, *arguments, **options)
        kept.append(self._held[name, "policy"].model)

    monkeypatch.setattr(Models, "train", keeping)
    run(tmp_path, judge=None, objective=SFT)
    saved = load_model(AutoModelForCausalLM, tmp_path / "policy", dtype=torch.float32)
    (model,) = kept
    fresh = dict(saved.named_buffers())
    for name, buffer in model.named_buffers():  # those of positions would be rounded for good
        assert buffer.equal(fresh[name]), name
    for (name, ours), (_, theirs) in zip(model.named_parameters(), saved.named_parameters(), strict=True):
        assert ours.equal(theirs), name


def test_a_reward_model_learns_from_the_search_that_it_guides(tmp_path: Path) -> None:
    """Its weights run while trees are grown and are trained in place, round by round."""
    learn = [
        {
            "model": "scorer", "objective": "process_reward", "data": ["step_labels"], "stop_by": "nothing",
            "training": {"learning_rate": 1e-3, "tokens_per_batch": 256},
        }
    ]  # fmt: skip
    judge = {"model": "shipped:countdown-reward"}
    run(tmp_path, judge=judge, objective=None, search="beam", scorer="process_reward", learn=learn, rounds=2)
    assert (tmp_path / "scorer" / "model.safetensors").is_file()
    assert (tmp_path / "checkpoints" / "scorer-1" / "scorer" / "model.safetensors").is_file()
    grown = [list(TreeStore(tmp_path / "trees" / f"round-{number}.jsonl")) for number in (1, 2)]
    scores = [node.scores["process_reward"] for trees in grown for node in trees[0].root.children]
    assert len(scores) == len(set(scores)), "each round is guided by other weights"


def _is_whole(model: PreTrainedModel) -> bool:
    return type(model).__name__.endswith(("ForCausalLM", "ForTokenClassification"))
