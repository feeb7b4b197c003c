"""What is not there is said in seconds, and what was fetched before is loaded without the hub."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import gradatim.hub as hub
from fake_hub import FakeHub, refusing_url, serving, use_hub
from gradatim import GradatimError
from gradatim.engine.loading import load_config, load_merged_model, load_model, load_tokenizer
from gradatim.models import resolve_model
from gradatim.policies.transformers import TransformersPolicy
from gradatim.records import check_local, open_hub, open_hub_splits
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.tasks.gsm8k import Gsm8k
from gradatim.training.process_reward_model import load_process_reward_model
from tiny_models import tiny_causal, word_tokenizer

LOADERS = [TransformersPolicy.from_pretrained, ProcessRewardScorer.from_pretrained, load_process_reward_model]


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(hub, "LOOK_SECONDS", 1.0)
    monkeypatch.chdir(tmp_path)
    with serving() as server:
        use_hub(server.url, tmp_path / "cache", monkeypatch)
        yield server


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "uploaded"
    tiny_causal().save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def error_of(load: Any, *arguments: Any) -> str:
    """What a load says, which takes a moment and is one line."""
    began = time.monotonic()
    with pytest.raises(GradatimError) as error:
        load(*arguments)
    assert time.monotonic() - began < 4
    assert "\n" not in str(error.value)
    return str(error.value)


SAID = {
    "missing": "and the hub has no model of that name; check the name, or log in if it is private: hf auth login",
    "gone": "and the hub has no model of that name; check the name",
    "gated": "and the hub gives it only to those who accepted its licence; accept it at http://.*/some/model and log",
    "not allowed": "and the hub gives it only to those who accepted its licence",
    "token": r"and the hub refuses the token \(it answers 401\); log in anew with: hf auth login",
    "overloaded": "and the hub answers 503; try again later",
    "silence": "and the hub is silent; check the connection",
}


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("answer", SAID)
def test_what_the_hub_does_not_give_is_one_sentence_after_one_look(
    fake_hub: FakeHub, answer: str, load: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fake_hub.answers["some/model"] = answer
    with pytest.raises(GradatimError, match=f"^there is no folder 'some/model', {SAID[answer]}"):
        load("some/model")
    error_of(load, "some/model")
    assert fake_hub.requests == ["HEAD /some/model/resolve/main/config.json"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_hub_that_refuses_connections_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(refusing_url(), tmp_path, monkeypatch)
    said = "there is no folder 'some/model', and the hub cannot be reached (Connection refused); check the connection"
    assert error_of(load_tokenizer, "some/model") == said
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = "there is no folder 'other', and the hub is not asked (HF_HUB_OFFLINE is set); unset it"
    assert error_of(load_config, "other") == said


def test_a_hub_whose_name_is_looked_up_for_ever_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub("http://hub.invalid", tmp_path, monkeypatch)
    monkeypatch.setattr(hub, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(hub, "_ask", lambda *_: time.sleep(2))
    assert "the hub is silent" in error_of(load_config, "some/model")
    began = time.monotonic()
    assert "the hub is silent" in error_of(load_config, "another/model")  # which is not waited for again
    assert time.monotonic() - began < 0.1


def test_near_names_are_those_of_folders_beside_it_and_of_shipped_models(fake_hub: FakeHub, tmp_path: Path) -> None:
    for name in ("mime", "other"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models" / "mine.txt").touch()
    assert "'models/mine' (did you mean 'models/mime'?), and the hub has no" in error_of(load_config, "models/mine")
    assert "'countdwn' (did you mean 'shipped:countdown'?), and" in error_of(load_config, "countdwn")
    fake_hub.requests.clear()
    said = error_of(load_config, "./models/mine")
    assert said.startswith("there is no folder './models/mine' (did you mean './models/mime'?); name a folder made by")
    assert "shipped:countdown, shipped:countdown-reward" in said
    assert error_of(load_config, "a/b/c").startswith("there is no folder 'a/b/c'; name a folder")
    assert error_of(load_config, "models/mine.txt") == "'models/mine.txt' is a file; name the folder of the model"
    assert fake_hub.requests == []


def test_what_was_fetched_once_is_loaded_without_the_hub(
    fake_hub: FakeHub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub.folders["some/model"] = model
    fetched = TransformersPolicy.from_pretrained("some/model").model.state_dict()
    for answer in ("silence", "gated", "missing", "overloaded"):
        fake_hub.answers["some/model"] = answer
        hub._seen.clear()
        again = TransformersPolicy.from_pretrained("some/model").model.state_dict()
        assert all(torch.equal(fetched[name], again[name]) for name in fetched)
    use_hub(refusing_url(), tmp_path / "cache", monkeypatch)
    assert TransformersPolicy.from_pretrained("some/model")
    assert load_process_reward_model("some/model")
    (weights,) = (tmp_path / "cache").glob("models--some--model/snapshots/*/model.safetensors")
    weights.unlink()
    said = (
        "the hub's cache holds only a part of 'some/model', and the hub cannot be reached (Connection refused); check"
    )
    assert said in error_of(TransformersPolicy.from_pretrained, "some/model")


# Adapters


def save_adapter(base: Path | str, folder: Path) -> Path:
    loaded = load_model(AutoModelForCausalLM, base, dtype=torch.float32)
    adapted = get_peft_model(loaded, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    adapted.save_pretrained(folder)
    return folder


def test_adapters_are_fetched_with_their_bases(
    fake_hub: FakeHub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub.folders["some/model"] = model
    fake_hub.folders["some/adapter"] = save_adapter("some/model", tmp_path / "adapter")
    policy = TransformersPolicy.from_pretrained("some/adapter")
    assert policy.tokenizer.get_vocab() == word_tokenizer().get_vocab()

    def logits(name: str | Path, load: Any = load_model) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = load(AutoModelForCausalLM, name, dtype=torch.float32)(torch.arange(4)[None]).logits
        return found

    adapted = logits("some/adapter")
    assert torch.equal(adapted, logits(tmp_path / "adapter"))
    use_hub(refusing_url(), tmp_path / "cache", monkeypatch)
    assert TransformersPolicy.from_pretrained("some/adapter")
    assert torch.equal(adapted, logits("some/adapter"))
    torch.testing.assert_close(adapted, logits(tmp_path / "adapter", load_merged_model), atol=1e-4, rtol=0.0)
    assert not torch.allclose(adapted, logits(model), atol=1e-2)
    merged = load_merged_model(AutoModelForCausalLM, tmp_path / "adapter", dtype=torch.float32)
    assert (
        merged.state_dict().keys() == load_model(AutoModelForCausalLM, model, dtype=torch.float32).state_dict().keys()
    )
    assert all(weight.requires_grad for weight in merged.parameters())


@pytest.mark.parametrize("load", LOADERS[1:])
def test_an_adapter_is_no_reward_model(fake_hub: FakeHub, model: Path, tmp_path: Path, load: Any) -> None:
    adapter = save_adapter(model, tmp_path / "adapter")
    assert f"is an adapter of {str(model)!r} and no model of its own; merge it into its base" in error_of(load, adapter)


def test_an_adapter_with_another_vocabulary_says_the_sizes_and_leaves_the_base_as_it_is(
    fake_hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    grown = load_model(AutoModelForCausalLM, model, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in grown.state_dict().items()}
    rows = grown.config.vocab_size
    grown.resize_token_embeddings(rows + 8)
    config = LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], task_type="CAUSAL_LM")
    get_peft_model(grown, config).save_pretrained(tmp_path / "grown")
    policy = TransformersPolicy.from_pretrained(model)
    said = error_of(policy.load_adapter, tmp_path / "grown", "x")
    assert re.search(rf"made for a model of other sizes: its \S+ is {rows + 8} by \d+, the base's {rows} by", said)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.model.state_dict().items())


def test_a_base_that_is_not_there_is_named_with_the_way_to_say_where_it_is(
    fake_hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(model, tmp_path / "adapter")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    for base, said in (("some/base", "and the hub has no model of that name"), ("/gone/base", "there is no folder")):
        (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": base}))
        for load in (TransformersPolicy.from_pretrained, load_tokenizer, load_config):
            message = error_of(load, adapter)
            assert said in message
            assert f"{base!r}" in message
            assert message.endswith(
                f"It is the base of the adapter {str(adapter)!r}; if it lies elsewhere, name it as the model, with "
                "adapter='FOLDER'"
            )
    assert TransformersPolicy.from_pretrained(model, adapter=adapter)
    for content in ("{", "[]", "{}", '{"base_model_name_or_path": null}'):
        (adapter / "adapter_config.json").write_text(content)
        assert "adapter" in error_of(TransformersPolicy.from_pretrained, adapter)


# Data sets


@pytest.mark.parametrize("answer", SAID)
def test_a_data_set_that_the_hub_does_not_give_is_one_sentence_that_says_how_to_give_a_file(
    fake_hub: FakeHub, answer: str
) -> None:
    fake_hub.answers["openai/gsm8k"] = answer
    said = error_of(Gsm8k().problems, "train", 3)
    assert said.startswith(
        "cannot load the train split of 'openai/gsm8k', configuration 'main': there is no such file or folder, and the "
    )
    assert said.endswith("or give a file, or a folder with train.jsonl and test.jsonl: source='FILE.jsonl'")
    assert fake_hub.requests == ["HEAD /datasets/openai/gsm8k/resolve/main/dataset_infos.json"]
    assert "'openai/gsm8k': there is no such file or folder, and the hub" in error_of(open_hub_splits, "openai/gsm8k")
    assert "or name a local file or folder" in error_of(open_hub, "openai/gsm8k", "train")


def test_a_path_that_can_be_no_id_is_not_looked_for_on_the_hub(fake_hub: FakeHub) -> None:
    assert "there is no file or folder 'data/my/rows'" in error_of(check_local, "data/my/rows")
    check_local("hf://datasets/some/set")
    check_local("some/set")
    assert fake_hub.requests == []


def test_shipped_models_need_no_hub(fake_hub: FakeHub) -> None:
    assert load_config("shipped:countdown").model_type == "llama"
    assert Path(resolve_model("shipped:countdown")).is_dir()
    assert fake_hub.requests == []
