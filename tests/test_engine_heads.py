"""Heads are trained with a model, fully or beside adapters, and lie in its folder without being in anybody's way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gradatim.engine.head_shape import HeadShape
from gradatim.engine.heads import HEADS_FILE, attach_heads, heads_of, reading_heads
from gradatim.engine.loading import load_model
from gradatim.errors import GradatimError
from gradatim.objectives import ProcessReward, StepDpo, Svpo, Value
from gradatim.supervision import Term, labelled_step, pair
from gradatim.training import LoraSettings, TrainingSettings, TreeTrainer, load_process_reward_model, save_model, train
from gradatim.training.arguments import training_arguments
from gradatim.tree import Tree
from tiny_models import tiny_causal, word_tokenizer
from training_models import random_tree

SETTINGS = TrainingSettings(learning_rate=1e-2, warmup_ratio=0.0, epochs=8, tokens_per_batch=60, log_every=1)
TOKENS = torch.tensor([[5, 9, 11, 30, 7]])


def trees() -> list[Tree]:
    return [random_tree(seed, nodes=10) for seed in range(4)]


def labels() -> list[Term]:
    """Labels that the tokens decide, so that they can be learned."""
    return [labelled_step(node, float(node.step.tokens[-1] > 48)) for tree in trees() for node in tree.nodes[1:]]


def pairs() -> list[Term]:
    return [
        pair(node.children[0], other, (1.0, 0.0))
        for tree in trees()
        for node in tree.nodes
        for other in node.children[1:]
    ]


def model() -> Any:
    return tiny_causal(vocabulary=97)


def values(of: Any) -> torch.Tensor:
    with torch.no_grad(), reading_heads(of, ["value"]) as found:
        of(input_ids=TOKENS)
    return found["value"][0]


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)])
@pytest.mark.parametrize("objective", [Value(), Value(kind="cross_entropy"), Svpo(ranking=2.0)])
def test_a_head_is_trained_with_its_model_and_loaded_with_it(
    objective: Any, lora: LoraSettings | None, tmp_path: Path
) -> None:
    start = model()
    plain = start.lm_head.weight.clone()
    result = train(start, objective, pairs() if isinstance(objective, Svpo) else labels(), replace(SETTINGS, lora=lora))
    assert result.history[-1]["loss"] < 0.9 * result.history[0]["loss"]
    if isinstance(objective, Svpo):
        assert result.history[-1]["values/accuracies"] > 0.9
        assert result.history[-1]["rewards/margins"] > 0.01
    else:
        assert result.history[-1]["accuracy"] > 0.9
    after = values(result.model)
    assert float(after.abs().max()) > 0.01
    save_model(result.model, word_tokenizer(), tmp_path / "policy")
    assert not any("heads" in name for name in load_file(tmp_path / "policy" / "model.safetensors"))
    assert set(load_file(tmp_path / "policy" / HEADS_FILE)) == {"value.weight", "value.bias"}
    again = load_model(AutoModelForCausalLM, tmp_path / "policy", dtype=torch.float32)
    torch.testing.assert_close(values(again.eval()), after, atol=1e-5, rtol=0)
    assert torch.equal(again.lm_head.weight, plain) == (lora is not None or isinstance(objective, Value))
    anybodys = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert heads_of(anybodys) == {}
    assert values(again).shape == TOKENS[0].shape
    train(again, objective, pairs() if isinstance(objective, Svpo) else labels(), replace(SETTINGS, epochs=1))


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)])
def test_training_with_a_head_goes_on_from_its_checkpoint(lora: LoraSettings | None, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=2, lora=lora)
    whole = train(model(), Value(), labels(), settings)

    def stop(made: int, planned: int) -> None:
        if made == 5:
            raise KeyboardInterrupt

    broken = replace(settings, save_every=3, output_dir=tmp_path / "broken", resume=True)
    with pytest.raises(KeyboardInterrupt):
        train(model(), Value(), labels(), broken, on_update=stop)
    assert (tmp_path / "broken" / "checkpoint-3").is_dir()
    again = train(model(), Value(), labels(), broken)
    assert again.updates == whole.updates > 5
    torch.testing.assert_close(values(again.model), values(whole.model), atol=1e-6, rtol=0)


def test_the_best_state_of_a_head_is_kept() -> None:
    seen: list[torch.Tensor] = []

    def evaluate(of: Any) -> float:
        seen.append(values(of))
        return {0: 0.0, 1: 1.0}.get(len(seen) - 1, 0.5)

    result = train(model(), Value(), labels(), replace(SETTINGS, evaluate_every=2), evaluate=evaluate)
    assert result.best_update == 2
    torch.testing.assert_close(values(result.model), seen[1])


def test_heads_that_an_objective_does_not_read_stay_as_they_are(tmp_path: Path) -> None:
    start = model()
    attach_heads(start, {"value": HeadShape(), "other": HeadShape(3)})
    for head in heads_of(start).values():
        torch.nn.init.normal_(head.weight)
    kept = heads_of(start)["other"].weight.clone()
    result = train(start, Value(), labels(), replace(SETTINGS, epochs=1))
    assert torch.equal(heads_of(result.model)["other"].weight, kept)
    save_model(result.model, word_tokenizer(), tmp_path)
    again = heads_of(load_model(AutoModelForCausalLM, tmp_path, dtype=torch.float32))
    assert torch.equal(again["other"].weight, kept)
    assert again.keys() == {"value", "other"}


def test_a_head_is_float32_in_mixed_precision() -> None:
    result = train(model(), Value(), labels(), replace(SETTINGS, bf16=True))
    assert result.history[-1]["accuracy"] > 0.9
    assert values(result.model).dtype == torch.float32


def test_a_reward_models_own_head_is_its_score(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    with pytest.raises(GradatimError, match="gives no log-probabilities or values"):
        train(load_process_reward_model(tmp_path), Value(), labels(), SETTINGS)
    with pytest.raises(GradatimError, match="gives no log-probabilities or values"):
        train(load_process_reward_model(tmp_path), StepDpo(), pairs(), SETTINGS)
    judge = train(load_process_reward_model(tmp_path), ProcessReward(), labels(), SETTINGS).model
    assert heads_of(judge) == {}
    with pytest.raises(GradatimError, match="lacks the head 'value'"):
        TreeTrainer(model(), training_arguments(SETTINGS, tmp_path), objective=Value(), terms=labels())
