"""Model cards are valid on the hub, and the code in them gives what the model gives."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from gradatim import EndReason, GradatimError, Problem, Step, Tree
from gradatim.models import resolve_model
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.text.prompts import ChatFormat
from gradatim.training.model_card import write_model_card
from gradatim.training.process_reward_model import load_process_reward_model
from gradatim.training.saving import save_process_reward_model
from tiny_models import byte_pair_tokenizer, tiny_causal

CARD: dict[str, Any] = {
    "kind": "process-reward-model", "base_model": "owner/model", "recipe": {}, "data": "", "metrics": {},
}  # fmt: skip
RECIPE = {"seed": 7, "policy": {"model": "owner/model"}, "note": "é"}


def write(folder: Path, **changes: Any) -> ModelCard:
    given: dict[str, Any] = {
        "kind": "process-reward-model",
        "base_model": "owner/model-1.5B",
        "recipe": RECIPE,
        "data": "It learned from 1,234 step labels.",
        "metrics": {"held-out loss": 0.25, "steps | labels": 1234},
        "chat": None,
        "boundary": Delimiter(),
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


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = ChatFormat(system='Think in steps.\nThen "answer" {so}.', examples=(("What is 1 + 1?", "It is 2."),))
PROBLEM = Problem("p", "Question: What is 3 + 5?\nAnswer:\n", data={"question": "What is 3 + 5?"})
STEPS = ["3 + 5 is 8.\n\n", "So it is\n\n8."]


def save_chat_model(folder: Path, model: Any) -> Any:
    """A tiny model whose end of a turn is not the tokenizer's end token; returns the tokenizer."""
    tokenizer = byte_pair_tokenizer([PROBLEM.prompt, *STEPS, "What is 1 + 1? It is 2."], size=300)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    made = model(len(tokenizer))
    made.generation_config.eos_token_id = [1, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    made.generation_config.do_sample, made.generation_config.top_p = True, 0.5
    made.generation_config.repetition_penalty = 1.3
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def run_card(card: ModelCard, folder: Any) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code_of(card).replace("path/or/hub-id", str(folder)), names)
    return names


def scores_of(folder: Path, problem: Problem, steps: list[str], *, finished: bool) -> list[float]:
    """The scores that the library gives the steps as text."""
    tree = Tree(problem)
    node = tree.root
    for number, text in enumerate(steps, 1):
        last = finished and number == len(steps)
        node = tree.add(node, Step((), text, end=EndReason.END_OF_TEXT if last else EndReason.BOUNDARY))
    scorer = ProcessRewardScorer.from_pretrained(folder)
    asyncio.run(scorer.score(tree.nodes[1:]))
    return [node.scores[scorer.name] for node in tree.nodes[1:]]


@pytest.mark.parametrize("chat", [None, CHAT])
@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("finished", [False, True])
def test_the_code_of_a_reward_models_card_gives_the_librarys_scores(
    labels: Any, chat: ChatFormat | None, finished: bool, tmp_path: Path
) -> None:
    tokenizer = save_chat_model(tmp_path / "base", lambda size: tiny_causal("llama", vocabulary=size, positions=512))
    model = load_process_reward_model(tmp_path / "base", labels=labels)
    save_process_reward_model(
        model,
        tokenizer,
        tmp_path / "model",
        chat,
        also=lambda folder: write_model_card(
            folder, **CARD | {"chat": chat, "boundary": Delimiter(at=("\n\n",)), "labels": labels}
        ),
    )
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert ("label 1" in card.text) == (labels == 2)
    assert r"'\n\n'" in card.text
    asked = PROBLEM.prompt if chat is None else PROBLEM.data["question"]
    found = run_card(card, tmp_path / "model")["score_steps"](asked, STEPS, finished)
    expected = scores_of(tmp_path / "model", PROBLEM, STEPS, finished=finished)
    assert found == pytest.approx(expected, abs=1e-5)
    assert len(set(found)) == 2


@pytest.mark.parametrize("chat", [None, CHAT])
def test_the_code_of_a_policys_card_gives_the_librarys_solution(chat: ChatFormat | None, tmp_path: Path) -> None:
    save_chat_model(tmp_path, lambda size: tiny_causal("llama", vocabulary=size, positions=512))
    card = write(tmp_path, kind="policy", chat=chat, boundary=Delimiter(at=("\n\n", "e")))
    assert r"each step ends with '\n\n' or 'e'." in card.text
    asked = PROBLEM.prompt if chat is None else PROBLEM.data["question"]
    solution = run_card(card, tmp_path)["solve"](asked, max_new_tokens=24, temperature=0)
    policy = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)[1].replace("path/or/hub-id", str(tmp_path))
    names: dict[str, Any] = {}
    exec(policy, names)
    engine = names["policy"]
    assert (engine.chat, engine.sampling.boundary) == (chat, Delimiter(at=("\n\n", "e")))
    greedy = replace(
        engine.sampling, temperature=0.0, max_step_tokens=24, max_steps=1, boundary=Delimiter(at=("never",))
    )
    leaf = asyncio.run(engine.extend([Tree(PROBLEM).root], steps=None, sampling=greedy))[0]
    assert solution == leaf.text
    assert solution
    sampled = run_card(card, tmp_path)["solve"](asked, max_new_tokens=3)
    assert isinstance(sampled, str)


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(GradatimError, match=r"there is no model folder .*save the model first"):
        write(tmp_path / "nowhere")
