"""Models are saved in the type that they had, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gradatim.engine.loading import load_model
from gradatim.errors import GradatimError
from gradatim.training import LoraSettings, load_process_reward_model, save_model, save_process_reward_model
from gradatim.training.adapters import add_adapters
from tiny_models import tiny_causal, word_tokenizer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The folder of a language model in bfloat16."""
    tiny_causal().to(torch.bfloat16).save_pretrained(tmp_path / "source")
    word_tokenizer().save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def types_in(folder: Path) -> tuple[set[torch.dtype], str]:
    """The types of the weights in the file, and what the configuration says."""
    weights = load_file(folder / "model.safetensors")
    return {value.dtype for value in weights.values()}, json.loads((folder / "config.json").read_text())["dtype"]


@pytest.mark.parametrize("trained_in", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lora", [False, True])
def test_a_policy_is_saved_in_the_type_that_it_had(
    trained_in: torch.dtype, lora: bool, source: Path, tmp_path: Path
) -> None:
    model: Any = load_model(AutoModelForCausalLM, source, dtype=trained_in)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if lora:
        model = add_adapters(model, LoraSettings(rank=2))
    save_model(model, word_tokenizer(), tmp_path / "policy")
    assert types_in(tmp_path / "policy") == ({torch.bfloat16}, "bfloat16")
    saved = load_file(tmp_path / "policy" / "model.safetensors")
    assert all(torch.equal(value, load_file(source / "model.safetensors")[name]) for name, value in saved.items())
    if not lora:
        assert model.dtype == model.config.dtype == trained_in
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_reward_model_is_saved_in_the_type_that_its_base_had(source: Path, tmp_path: Path) -> None:
    model = load_process_reward_model(source)
    assert model.dtype == torch.float32
    save_process_reward_model(model, word_tokenizer(), tmp_path / "judge")
    assert types_in(tmp_path / "judge") == ({torch.bfloat16}, "bfloat16")
    save_process_reward_model(model, word_tokenizer(), tmp_path / "judge", dtype=torch.float32)
    assert types_in(tmp_path / "judge") == ({torch.float32}, "float32")


def test_a_model_that_came_from_nowhere_keeps_its_own_type(tmp_path: Path) -> None:
    save_model(tiny_causal(), word_tokenizer(), tmp_path / "policy")
    assert types_in(tmp_path / "policy") == ({torch.float32}, "float32")


def test_a_folder_is_replaced_as_a_whole_and_keeps_what_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "policy"
    save_model(tiny_causal(), word_tokenizer(), folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "checkpoints" / "one").mkdir(parents=True)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"of an earlier, larger model")
    before = (folder / "model.safetensors").read_bytes()

    def fail(partial: Path) -> None:
        assert (partial / "model.safetensors").is_file()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_model(tiny_causal(seed=1), word_tokenizer(), folder, also=fail)
    assert (folder / "model.safetensors").read_bytes() == before
    save_model(tiny_causal(seed=1), word_tokenizer(), folder)
    assert (folder / "model.safetensors").read_bytes() != before
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "checkpoints" / "one").is_dir()
    assert not (folder / "model-00001-of-00002.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    monkeypatch.chdir(folder)
    with pytest.raises(GradatimError, match="current folder"):
        save_model(tiny_causal(), word_tokenizer(), ".")
