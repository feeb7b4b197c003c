"""A real language model, real text: ``make smollm2`` makes the folder; without it these tests are skipped."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from gradatim.engine.loading import load_model, load_tokenizer
from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.run.learning import solution_nodes
from gradatim.tasks import WordProblems
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.text.prompts import ChatFormat, prompt_tokens
from gradatim.tree import EndReason, Node, Problem, Tree

FOLDER = Path(os.environ.get("GRADATIM_SMOLLM2", Path(__file__).parents[1] / "models" / "smollm2-135m-instruct"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs SmolLM2, which is not here: make smollm2")

CAPITAL = Problem("capital", "What is the capital of France?")
STORY = Problem("story", "Write two sentences about the sea.")
GREEDY = Sampling(temperature=0.0, max_step_tokens=40, max_steps=1)


@pytest.fixture(scope="module")
def policy() -> TransformersPolicy:
    return TransformersPolicy.from_pretrained(FOLDER, chat=ChatFormat(), sampling=GREEDY)


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(AutoModelForCausalLM, FOLDER, dtype=torch.float32).eval()


def rollout(policy: TransformersPolicy, problem: Problem, sampling: Sampling, n: int = 1) -> list[Node]:
    return asyncio.run(policy.extend([Tree(problem, seed=1).root], n, steps=None, sampling=sampling))


def largest_difference(model: Any, leaf: Node) -> float:
    """Between the log-probabilities that the engine recorded and those of the whole text at once."""
    tokens, start = leaf.tokens, len(leaf.path()[0].step.tokens)
    recorded = [value for node in leaf.path()[1:] for value in node.step.log_probabilities]
    with torch.no_grad():
        told = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    forced = told[start - 1 : -1].gather(-1, torch.tensor(tokens[start:])[:, None])[:, 0]
    return float((forced - torch.tensor(recorded)).abs().max())


def test_engine_equals_teacher_forcing_on_real_text(policy: TransformersPolicy, model: Any) -> None:
    sampling = Sampling(temperature=1.0, max_step_tokens=12, max_steps=2, boundary=Delimiter(at=(".", ",")))
    for leaf in rollout(policy, STORY, sampling, 3):
        assert largest_difference(model, leaf) < 1e-4


def test_tokens_are_those_that_the_model_was_trained_on(policy: TransformersPolicy) -> None:
    tokenizer = load_tokenizer(FOLDER)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("It costs 127.\n\n3")["input_ids"])
    assert pieces == ["It", "Ġcosts", "Ġ", "1", "2", "7", ".", "ĊĊ", "3"], "every digit for itself"
    conversation = [{"role": "user", "content": CAPITAL.prompt}]
    expected = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
    assert prompt_tokens(tokenizer, CAPITAL, ChatFormat()) == expected
    assert tokenizer.decode(expected).endswith(f"user\n{CAPITAL.prompt}<|im_end|>\n<|im_start|>assistant\n")


def test_it_answers_and_ends_with_its_end_token(policy: TransformersPolicy) -> None:
    [leaf] = rollout(policy, CAPITAL, GREEDY)
    assert leaf.text == "The capital of France is Paris."
    assert leaf.step.end is EndReason.END_OF_TEXT
    assert leaf.step.tokens[-1] == load_tokenizer(FOLDER).convert_tokens_to_ids("<|im_end|>")


def test_a_step_can_end_within_a_word_and_within_a_token(policy: TransformersPolicy) -> None:
    """Steps divide the very tokens that are written without them; each ends with the token that completes its end."""
    whole = rollout(policy, CAPITAL, GREEDY)[0]
    boundary = "l of Fr"  # begins and ends inside tokens
    steps = Sampling(temperature=0.0, max_step_tokens=40, max_steps=3, boundary=Delimiter(at=(boundary,)))
    [leaf] = rollout(policy, CAPITAL, steps)
    first, rest = leaf.path()[1:]
    assert leaf.tokens == whole.tokens
    assert (first.step.text, rest.step.text) == ("The capital of France", " is Paris.")
    assert first.step.end is EndReason.BOUNDARY


def test_a_demonstration_is_the_conversation_that_the_template_writes() -> None:
    tokenizer, task = load_tokenizer(FOLDER), WordProblems(operations=(1, 2))
    problem, solution = next(task.demonstrations("train"))
    [node] = solution_nodes([(problem, solution)], tokenizer, ChatFormat())
    turns = [{"role": "user", "content": problem.prompt}, {"role": "assistant", "content": solution}]
    whole = tokenizer.apply_chat_template(turns, return_dict=False)
    assert node.tokens == whole[:-1], "all but the line end behind the turn, which nobody writes"


def test_an_adapter_folder_is_a_policy(model: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    adapted = get_peft_model(
        load_model(AutoModelForCausalLM, FOLDER, dtype=torch.float32),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"),
    ).eval()
    adapted.save_pretrained(tmp_path)
    load_tokenizer(FOLDER).save_pretrained(tmp_path)
    policy = TransformersPolicy.from_pretrained(tmp_path, chat=ChatFormat())
    sampling = Sampling(temperature=1.0, max_step_tokens=12, max_steps=1)
    for leaf in rollout(policy, STORY, sampling, 2):
        assert largest_difference(adapted, leaf) < 1e-4
        assert largest_difference(model, leaf) > 1e-2, "the adapter changes what the model says"
