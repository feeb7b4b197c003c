"""Model cards are valid on the hub, and the code in them gives what the model gives."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import AutoTokenizer

from gradatim import EndReason, GradatimError, Problem, Step, Tree
from gradatim.models import resolve_model
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.training.model_card import write_model_card
from gradatim.training.process_reward_model import load_process_reward_model

RECIPE = {"seed": 7, "policy": {"model": "owner/model"}, "note": "é"}


def write(folder: Path, **changes: Any) -> ModelCard:
    given: dict[str, Any] = {
        "kind": "process-reward-model",
        "base_model": "owner/model-1.5B",
        "recipe": RECIPE,
        "data": "It learned from 1,234 step labels.",
        "metrics": {"held-out loss": 0.25, "steps | labels": 1234},
    }
    write_model_card(folder, **given | changes)
    return ModelCard.load(folder / "README.md")


def code_of(card: ModelCard) -> str:
    """The first Python block."""
    match = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert match is not None
    return match[1]


def test_metadata_and_everything_that_was_given(tmp_path: Path) -> None:
    card = write(tmp_path, threshold=0.625, first_error_threshold=0.125, license="apache-2.0")
    assert card.data.to_dict() == {
        "base_model": "owner/model-1.5B",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "token-classification",
        "tags": ["gradatim", "process-reward-model"],
    }
    assert f"# {tmp_path.name}\n" in card.text
    assert "It learned from 1,234 step labels." in card.text
    assert "| held-out loss | 0.25 |" in card.text
    assert "| steps / labels | 1234 |" in card.text
    assert "at least 0.625" in card.text
    assert "below 0.125" in card.text
    recipe = re.search(r"```yaml\n(.*?)```", card.text, re.DOTALL)
    assert recipe is not None
    assert yaml.safe_load(recipe[1]) == RECIPE


@pytest.mark.parametrize("base_model", ["shipped:countdown", "runs/first/policy", "/models/base", "gpt2"])
def test_only_hub_ids_are_named_in_the_metadata(base_model: str, tmp_path: Path) -> None:
    card = write(tmp_path, base_model=base_model)
    assert "base_model" not in card.data.to_dict()
    assert f"`{base_model}`" in card.text


def test_policies_have_a_card_of_their_own(tmp_path: Path) -> None:
    card = write(tmp_path, kind="policy", metrics={})
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.tags == ["gradatim", "policy"]
    assert "Nothing was held out" in card.text
    assert "token_classify" not in card.text
    names: dict[str, Any] = {}
    exec(code_of(card).replace("path/or/hub-id", resolve_model("shipped:countdown")), names)
    assert isinstance(names["solve"]("Make 44 from 3 5 7 8\n", max_new_tokens=3), str)


@pytest.mark.parametrize("labels", [1, 2])
def test_the_code_of_a_reward_models_card_gives_the_scorers_scores(labels: Any, tmp_path: Path) -> None:
    model = load_process_reward_model(resolve_model("shipped:countdown"), labels=labels).eval()
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("shipped:countdown"))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    card = write(tmp_path, labels=labels)
    assert ("label 1" in card.text) == (labels == 2)

    prompt, steps = "Make 44 from 3 5 7 8\n", ["3 + 5 = 8\n", "8 * 7 = 56\n"]
    tree = Tree(Problem("p", prompt), prompt_tokens=tokenizer(prompt)["input_ids"])
    node = tree.root
    for step in steps:
        tokens = tuple(tokenizer(step, add_special_tokens=False)["input_ids"])
        node = tree.add(node, Step(tokens, step, end=EndReason.BOUNDARY))
    scorer = ProcessRewardScorer(model)
    asyncio.run(scorer.score(tree.nodes[1:]))
    expected = [node.scores[scorer.name] for node in tree.nodes[1:]]

    names: dict[str, Any] = {}
    exec(code_of(card).replace("path/or/hub-id", str(tmp_path)), names)
    assert names["score_steps"](prompt, steps) == pytest.approx(expected, abs=1e-4)


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(GradatimError, match=r"there is no model folder .*save the model first"):
        write(tmp_path / "nowhere")
