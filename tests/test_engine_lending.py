"""A policy's model is trained in place, and the policy goes on with the new weights as if it had loaded them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gradatim.engine.lending import trainable
from gradatim.errors import GradatimError
from gradatim.objectives import StepDpo, Svpo
from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.search import IndependentSampling
from gradatim.supervision import Term, pair
from gradatim.training import LoraSettings, TrainingSettings, save_model, train
from gradatim.tree import Problem, Tree
from tiny_models import prompt, tiny_causal, word_tokenizer

SETTINGS = TrainingSettings(learning_rate=2e-2, warmup_ratio=0.0, epochs=3, log_every=1)
SAMPLING = Sampling(max_step_tokens=8, max_steps=4)


def grown(policy: TransformersPolicy, seed: int = 0) -> Tree:
    tree = Tree(Problem("a", prompt(5, 9, 12)), seed=seed)
    asyncio.run(IndependentSampling(n=6)(tree, policy))
    return tree


def pairs_of(tree: Tree) -> list[Term]:
    return [pair(node.children[0], other, (1.0, 0.0)) for node in tree.nodes for other in node.children[1:]]


def written(tree: Tree) -> list[Any]:
    return [(node.step.tokens, node.step.source) for node in tree.nodes]


def log_probabilities(tree: Tree) -> list[float]:
    return [value for node in tree.nodes for value in node.step.log_probabilities]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_a_policy_that_was_trained_in_place_writes_what_its_saved_weights_write(
    family: str, lora: LoraSettings | None, tmp_path: Path
) -> None:
    policy = TransformersPolicy(tiny_causal(family), word_tokenizer(), sampling=SAMPLING)
    tree = grown(policy)
    before, attention = written(tree), policy.model.config._attn_implementation
    weights = policy.model.get_input_embeddings().weight
    for name in ("first", "second"):  # and what was trained once is trained again
        with trainable(policy) as model:
            assert model is policy.model
            result = train(model, StepDpo(), pairs_of(tree), replace(SETTINGS, lora=lora))
            save_model(result.model, word_tokenizer(), tmp_path / name)
        assert policy.model.config._attn_implementation == attention
        assert policy.model.get_input_embeddings().weight is weights
        loaded = TransformersPolicy.from_pretrained(tmp_path / name, sampling=SAMPLING)
        assert loaded.model is not policy.model
        tree, expected = grown(policy), grown(loaded)
        assert written(tree) == written(expected)
        # A file's weights lie at other places in memory, which may round some products otherwise.
        assert log_probabilities(tree) == pytest.approx(log_probabilities(expected), abs=1e-5)
        assert written(tree) != before
        before = written(tree)


def test_the_policy_measures_the_training_that_it_is_lent_to() -> None:
    """Evaluation runs the policy itself; training then goes on with its own attention."""
    policy = TransformersPolicy(tiny_causal(), word_tokenizer(), sampling=SAMPLING)
    tree, seen = grown(policy), []

    def evaluate(model: Any) -> float:
        policy.refresh()
        seen.append(written(grown(policy)))
        return float(len(seen))

    with trainable(policy) as model:
        train(model, Svpo(), pairs_of(tree), replace(SETTINGS, evaluate_every=2), evaluate=evaluate)
    assert len(seen) > 1
    assert seen[0] != seen[-1]
    assert written(grown(policy)) == seen[-1]  # the last was the best


def test_an_error_in_training_leaves_a_policy_that_runs() -> None:
    policy = TransformersPolicy(tiny_causal(), word_tokenizer(), sampling=SAMPLING)
    before = written(grown(policy))
    with pytest.raises(GradatimError, match="nothing to learn"), trainable(policy) as model:
        train(model, StepDpo(), [], SETTINGS)
    assert written(grown(policy)) == before
    assert not policy.model.training


def test_one_model_is_lent_at_a_time() -> None:
    policies = [TransformersPolicy(tiny_causal(seed=seed), word_tokenizer(), sampling=SAMPLING) for seed in range(2)]
    with pytest.raises(GradatimError, match="2 are lent"), trainable(*policies):
        pass
    second = TransformersPolicy(policies[0].model, word_tokenizer(), sampling=SAMPLING)
    with trainable(policies[0], second) as model, torch.no_grad():
        model.get_input_embeddings().weight.mul_(-1.0)
    assert written(grown(policies[0])) == written(grown(second))
