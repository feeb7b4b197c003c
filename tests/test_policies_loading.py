"""Loading says in one sentence what is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from gradatim.engine.loading import load_model
from gradatim.errors import GradatimError
from gradatim.policies.transformers import TransformersPolicy
from gradatim.scorers.process_reward import ProcessRewardScorer
from test_policies_exact import SHORT, assert_exact, make_policy, make_tree, structure
from tiny_models import tiny_causal, tiny_classifier, word_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tiny model and its tokenizer."""
    tiny_causal().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("as_type", [Path, str])
def test_a_saved_model_is_loaded(folder: Path, as_type: Any) -> None:
    policy = TransformersPolicy.from_pretrained(as_type(folder), sampling=SHORT, max_branches=7)
    assert policy.max_branches == 7
    trees = [make_tree(), make_tree()]
    asyncio.run(policy.extend([trees[0].root], 5))
    asyncio.run(make_policy().extend([trees[1].root], 5))
    assert structure(trees[0]) == structure(trees[1])
    assert_exact(tiny_causal(), trees[:1])


def assert_one_sentence(error: pytest.ExceptionInfo[GradatimError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 400
    for part in parts:
        assert part in message


@pytest.mark.parametrize("load", [TransformersPolicy.from_pretrained, ProcessRewardScorer.from_pretrained])
def test_a_missing_folder(tmp_path: Path, load: Any) -> None:
    with pytest.raises(GradatimError) as error:
        load(tmp_path / "nowhere")
    assert_one_sentence(error, "there is no folder", "nowhere")


@pytest.mark.parametrize("load", [TransformersPolicy.from_pretrained, ProcessRewardScorer.from_pretrained])
def test_a_folder_that_is_no_model(tmp_path: Path, load: Any) -> None:
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(GradatimError) as error:
        load(tmp_path)
    assert_one_sentence(error, str(tmp_path), "does not hold a model", "config.json")


def test_a_model_without_a_tokenizer(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(GradatimError) as error:
        TransformersPolicy.from_pretrained(folder)
    assert_one_sentence(error, "does not hold a tokenizer")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": "no-such-model"}'])
def test_a_broken_configuration(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(GradatimError) as error:
        TransformersPolicy.from_pretrained(folder)
    assert_one_sentence(error, "cannot load the model", str(folder))


@pytest.mark.parametrize("content", [b"", b"no tensors at all", b"\x08\0\0\0\0\0\0\0notjson!"])
def test_broken_weights(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(GradatimError) as error:
        TransformersPolicy.from_pretrained(folder)
    assert_one_sentence(error, "cannot load the model")


def test_missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(GradatimError) as error:
        load_model(AutoModelForCausalLM, folder, dtype=tiny_causal().dtype)
    assert_one_sentence(error, "cannot load the model")


def test_a_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(GradatimError) as error:
        TransformersPolicy.from_pretrained(folder)
    assert_one_sentence(error, "cannot load the tokenizer")


def test_a_tokenizer_without_an_end_token(folder: Path) -> None:
    endless = PreTrainedTokenizerFast(tokenizer_object=word_tokenizer()._tokenizer, pad_token="<pad>")
    endless.save_pretrained(folder)
    with pytest.raises(GradatimError) as error:
        TransformersPolicy.from_pretrained(folder)
    assert_one_sentence(error, "no end token", "eos_token")


@pytest.mark.parametrize("labels", [3, 9])
def test_a_classifier_with_too_many_labels(tmp_path: Path, labels: int) -> None:
    tiny_classifier(labels=labels).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(GradatimError) as error:
        ProcessRewardScorer.from_pretrained(tmp_path)
    assert_one_sentence(error, f"has {labels}", "one label or two")


def test_a_causal_model_is_no_process_reward_model(folder: Path) -> None:
    with pytest.raises(GradatimError) as error:
        ProcessRewardScorer.from_pretrained(folder)
    assert_one_sentence(error, "is an ordinary language model", "train one from it (gradatim train-scorer)")
    with pytest.raises(GradatimError) as error:
        ProcessRewardScorer.from_pretrained(folder, layout="own")
    assert_one_sentence(error, "is no LlamaForTokenClassification", "score.weight")


def test_a_process_reward_model_is_no_policy(tmp_path: Path) -> None:
    tiny_classifier().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(GradatimError) as error:
        TransformersPolicy.from_pretrained(tmp_path)
    assert_one_sentence(error, "is no LlamaForCausalLM", "lm_head.weight")
