from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from gradatim.engine.heads import attach_heads
from gradatim.engine.tree_model import TreeModel
from gradatim.errors import GradatimError
from gradatim.objectives import Dpo, Objective, ProcessReward, Sft, StepDpo
from gradatim.part import make, names, pages
from gradatim.supervision import Group, Term, labelled_step, pair, path_term
from gradatim.training import (
    LoraSettings,
    TrainingResult,
    TrainingSettings,
    TreeTrainer,
    build_row,
    check_lora_modules,
    load_process_reward_model,
    train,
)
from gradatim.training.arguments import training_arguments
from gradatim.training.forward import step_logits
from gradatim.training.preparation import disable_dropout
from gradatim.tree import Node, Problem, Step, Tree
from model_families import model_of
from training_models import path_log_probabilities, random_tree, tiny_model

FAST = TrainingSettings(learning_rate=5e-3, warmup_ratio=0.0, tokens_per_batch=60, log_every=1)


def record(model: Any, trees: list[Tree]) -> list[Tree]:
    """Write the model's own log-probabilities to the trees."""
    with torch.no_grad():
        for node in (node for tree in trees for node in tree.nodes[1:]):
            node.step = replace(node.step, log_probabilities=tuple(path_log_probabilities(model, node).tolist()))
    return trees


def sibling_pairs(trees: list[Tree]) -> list[Term]:
    return [
        pair(node.children[0], other, (1.0, 0.25), weight=1.0 + other.id % 2)
        for tree in trees
        for node in tree.nodes
        for other in node.children[1:]
    ]


def labels(trees: list[Tree]) -> list[Term]:
    """Labels that the tokens decide, so that they can be learned."""
    return [labelled_step(node, float(node.step.tokens[-1] > 48)) for tree in trees for node in tree.nodes[1:]]


@pytest.fixture
def trees() -> list[Tree]:
    return record(tiny_model(), [random_tree(seed, nodes=10) for seed in range(5)])


def weights_of(model: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().cpu() for parameter in model.parameters()])


def objective_and_terms(name: str, trees: list[Tree]) -> tuple[Objective, list[Term]]:
    """An objective with as many of its options in use as it has, and terms that it learns from."""
    options = {"beta": 0.5, "nll": 0.3, "margin": 0.5, "label_smoothing": 0.1}
    known = {option.name for page in pages("objectives") if page.name == name for option in page.options}
    objective: Objective = make("objectives", {name: {key: options[key] for key in options.keys() & known}})
    for terms in (sibling_pairs(trees), rated_pairs(trees), labels(trees), path_lists(trees)):
        try:
            for term in terms:
                objective.prepared(term)
        except GradatimError:
            continue
        return objective, terms
    raise AssertionError(f"{name} learns from no terms of this test: add some")


def rated_pairs(trees: list[Tree]) -> list[Term]:
    """Pairs of whole paths with a reward for each of their steps."""
    found = []
    for tree in trees:
        leaves = [node for node in tree.nodes if not node.children]
        for first, second in pairwise(leaves):
            groups = [
                Group(tuple(leaf.path()[1:]), targets=tuple(0.1 + 0.8 * (node.id % 5) / 4 for node in leaf.path()[1:]))
                for leaf in (first, second)
            ]
            found.append(Term(tuple(groups), targets=(1.0, 0.0)))
    return found


def path_lists(trees: list[Tree]) -> list[Term]:
    """Whole paths of each tree, the best first."""
    found = []
    for tree in trees:
        leaves = [node for node in tree.nodes if not node.children]
        groups = tuple(Group(tuple(leaf.path()[1:])) for leaf in leaves)
        found.append(Term(groups, targets=tuple(1.0 - place / len(groups) for place in range(len(groups)))))
    return found


def train_step_dpo(model: Any, pairs: list[Term], settings: TrainingSettings, **options: Any) -> TrainingResult:
    return train(model, StepDpo(), pairs, settings, **options)


def train_process_reward(model: Any, terms: list[Term], settings: TrainingSettings, **options: Any) -> TrainingResult:
    return train(model, ProcessReward(), terms, settings, **options)


def reward_model(seed: int = 0) -> Any:
    config = copy.deepcopy(tiny_model().config)
    config.num_labels, config.classifier_dropout = 1, 0.0
    torch.manual_seed(seed)
    return AutoModelForTokenClassification.from_config(config)


@pytest.mark.parametrize("name", names("objectives"))
def test_accumulation_changes_neither_loss_nor_gradient(name: str, trees: list[Tree], tmp_path: Path) -> None:
    objective, terms = objective_and_terms(name, trees)

    def fresh() -> Any:
        if "score" in objective.heads:
            return reward_model()
        model = tiny_model()
        attach_heads(model, objective.heads)
        return model

    trained = {}
    for rows, accumulation in ((1 << 20, 1), (40, 1000)):
        model = fresh()
        settings = replace(FAST, tokens_per_batch=rows, gradient_accumulation_steps=accumulation, max_grad_norm=1e9)
        arguments = training_arguments(settings, tmp_path)
        arguments.optim = "sgd"  # one plain step: the weights moved by the gradient, times a constant
        trainer = TreeTrainer(model, arguments, objective=objective, terms=terms, tokens_per_row=rows)
        parts = len(trainer.train_dataset)
        trainer.train()
        assert trainer.state.global_step == 1
        trained[accumulation] = (parts, trainer.state.log_history[0]["loss"], weights_of(model))
    assert trained[1][0] == 1
    assert trained[1000][0] > 4
    assert trained[1][1] == pytest.approx(trained[1000][1], abs=1e-5)
    before = weights_of(fresh())
    moved = (trained[1][2] - before).abs().max()
    assert float(moved) > 1e-5
    torch.testing.assert_close(trained[1][2], trained[1000][2], atol=float(moved) * 1e-3, rtol=0)


def test_step_dpo_learns_the_preferences(trees: list[Tree]) -> None:
    result = train_step_dpo(tiny_model(), sibling_pairs(trees), replace(FAST, epochs=6))
    first, last = result.history[0], result.history[-1]
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3)  # the policy is its own reference at the start
    assert last["loss"] < 0.5
    assert last["rewards/accuracies"] > 0.9
    assert result.updates == len(result.history)
    assert not result.model.training


def test_dpo_and_sft_learn(trees: list[Tree]) -> None:
    leaves = [list(tree.leaves()) for tree in trees]
    pairs = [pair(ends[0], ends[-1]) for ends in leaves if len(ends) > 1]
    assert train(tiny_model(), Dpo(), pairs, replace(FAST, epochs=6)).history[-1]["rewards/margins"] > 0.1
    history = train(tiny_model(), Sft(), [path_term(ends[0]) for ends in leaves], replace(FAST, epochs=6)).history
    assert history[-1]["negative_log_likelihood"] < history[0]["negative_log_likelihood"] - 0.5


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_process_reward_model_starts_from_a_language_model_and_reloads(
    outputs: Any, trees: list[Tree], tmp_path: Path
) -> None:
    tiny_model().save_pretrained(tmp_path / "policy")
    model = load_process_reward_model(tmp_path / "policy", labels=outputs)
    torch.testing.assert_close(model.model.embed_tokens.weight, tiny_model().model.embed_tokens.weight)
    result = train_process_reward(model, labels(trees), replace(FAST, epochs=12))
    assert result.history[-1]["accuracy"] > 0.9
    assert result.history[-1]["loss"] < 0.4
    model.save_pretrained(tmp_path / "prm")
    again = AutoModelForTokenClassification.from_pretrained(tmp_path / "prm").eval()
    row = build_row(labels(trees))
    torch.testing.assert_close(step_logits(again, row), step_logits(model, row))
    assert again.config.num_labels == load_process_reward_model(tmp_path / "prm").config.num_labels == outputs
    assert "gradatim" not in (tmp_path / "prm" / "config.json").read_text()


def test_lora_trains_adapters_only_and_base_is_the_reference(trees: list[Tree], tmp_path: Path) -> None:
    base = tiny_model()
    before = weights_of(base)
    settings = replace(FAST, epochs=4, lora=LoraSettings(rank=4, alpha=16))
    result = train_step_dpo(base, sibling_pairs(trees), settings, reference="base")
    assert result.history[-1]["rewards/margins"] > 0
    merged = copy.deepcopy(result.model).merge_and_unload()
    changed = (weights_of(merged) - before).abs().max()
    assert float(changed) > 1e-4
    with result.model.disable_adapter():
        plain = [parameter for name, parameter in result.model.named_parameters() if "lora_" not in name]
        torch.testing.assert_close(torch.cat([p.detach().flatten() for p in plain]), before)
    result.model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_config.json").exists()
    adapted = train_process_reward(reward_model(), labels(trees), replace(settings, epochs=10))
    assert adapted.history[-1]["loss"] < adapted.history[0]["loss"]


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (("q_proj", "query"), "'query' fits no module of the model; choose from down_proj, embed_tokens, gate_proj"),
        (("mlp",), "'mlp' is of a kind that cannot be adapted"),
        ("q_proj", "'q_proj' fits no module"),  # one string is a pattern for whole names
        (r"model\.layers\.(", "no valid pattern"),
    ],
)
def test_wrong_modules_for_adapters_are_refused_before_there_are_weights(modules: Any, message: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_model().config)
    with pytest.raises(GradatimError, match=re.escape(message)):
        check_lora_modules(model, LoraSettings(target_modules=modules))
    for right in ("all-linear", ("q_proj", "self_attn.v_proj"), r".*\.(q|v)_proj"):
        check_lora_modules(model, LoraSettings(target_modules=right))
    with pytest.raises(GradatimError, match=re.escape(message)):
        train(tiny_model(), Sft(), [], replace(FAST, lora=LoraSettings(target_modules=modules)))


def test_every_reference_gives_the_same_when_it_is_the_same_model(trees: list[Tree]) -> None:
    losses = []
    for reference in ("tree", "initial", tiny_model()):
        model = tiny_model()
        result = train_step_dpo(model, sibling_pairs(trees), replace(FAST, epochs=2), reference=reference)
        losses.append([entry["loss"] for entry in result.history])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0] == pytest.approx(losses[2], abs=1e-4)


def test_bfloat16_trains(trees: list[Tree]) -> None:
    result = train_step_dpo(tiny_model(), sibling_pairs(trees), replace(FAST, epochs=5, bf16=True))
    assert result.history[0]["loss"] == pytest.approx(0.6931, abs=2e-2)
    assert result.history[-1]["loss"] < 0.55
    assert result.model.dtype == torch.float32


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
@pytest.mark.parametrize("reward", [False, True])
def test_in_mixed_precision_a_measure_sees_the_plain_model(
    reward: bool, lora: LoraSettings | None, trees: list[Tree]
) -> None:
    """In training the forward pass is bfloat16 and its outputs float32; a measure gets what it would get outside."""
    seen: list[torch.Tensor] = []
    tokens = torch.tensor([[3, 4, 5, 6]])

    def evaluate(model: Any) -> float:
        assert "forward" not in vars(model) or vars(model)["forward"].__func__ is type(model).forward
        seen.append(model(input_ids=tokens).logits)
        TreeModel(model, memory_bytes=0)  # replaces the attention, as a policy does
        return float(len(seen))

    settings = replace(FAST, bf16=True, lora=lora, evaluate_every=1)
    if reward:
        result = train_process_reward(reward_model(), labels(trees), settings, evaluate=evaluate)
    else:
        result = train_step_dpo(tiny_model(), sibling_pairs(trees), settings, evaluate=evaluate)
    assert len(seen) == result.updates + 1 > 2
    fresh = reward_model() if reward else tiny_model()
    torch.testing.assert_close(seen[0], fresh(input_ids=tokens).logits, atol=1e-5, rtol=0)
    assert "forward" not in vars(result.model)
    after = result.model(input_ids=tokens).logits
    torch.testing.assert_close(after, seen[-1], atol=1e-5, rtol=0)  # the last value was the best


def test_a_model_is_trained_again_in_the_precision_that_is_asked_for(trees: list[Tree]) -> None:
    pairs, twice = sibling_pairs(trees), {}
    for first in (True, False):
        model = tiny_model()
        train_step_dpo(model, pairs, replace(FAST, bf16=first, learning_rate=1e-12))
        twice[first] = train_step_dpo(model, pairs, FAST).history
    assert [entry["loss"] for entry in twice[True]] == pytest.approx(
        [entry["loss"] for entry in twice[False]], abs=1e-5
    )


def test_resuming_ends_where_an_unbroken_run_ends(trees: list[Tree], tmp_path: Path) -> None:
    pairs = sibling_pairs(trees)
    settings = replace(FAST, epochs=3, output_dir=tmp_path / "whole", save_every=3)
    whole = train_step_dpo(tiny_model(), pairs, settings)

    class PullThePlugError(Exception):
        pass

    def stop(model: Any) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise PullThePlugError
        return 0.0

    calls: list[int] = []
    broken = replace(settings, output_dir=tmp_path / "broken", evaluate_every=4)
    with pytest.raises(PullThePlugError):
        train_step_dpo(tiny_model(), pairs, broken, evaluate=stop)
    assert (tmp_path / "broken" / "checkpoint-6").is_dir()
    again = train_step_dpo(tiny_model(), pairs, replace(broken, resume=True))
    assert again.updates == whole.updates > 8
    torch.testing.assert_close(weights_of(again.model), weights_of(whole.model), atol=1e-6, rtol=0)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "broken" / "checkpoint-6")
    assert reloaded.config._attn_implementation == "sdpa"


def scripted(values: list[float], seen: list[torch.Tensor]) -> Any:
    source: Iterator[float] = iter(values)

    def evaluate(model: Any) -> float:
        assert not model.training
        seen.append(weights_of(model))
        return next(source)

    return evaluate


def test_the_best_state_is_what_remains(trees: list[Tree], tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    settings = replace(FAST, epochs=10, evaluate_every=2, patience=2, output_dir=tmp_path)
    evaluate = scripted([0.1, 0.2, 0.5, 0.4, 0.3], seen)
    result = train_step_dpo(tiny_model(), sibling_pairs(trees), settings, evaluate=evaluate)
    assert result.evaluations == {0: 0.1, 2: 0.2, 4: 0.5, 6: 0.4, 8: 0.3}
    assert result.updates == 8  # patience ran out
    assert result.best_update == 4
    torch.testing.assert_close(weights_of(result.model), seen[2])
    assert not torch.equal(seen[2], seen[4])
    assert (tmp_path / "best.safetensors").exists()


def test_training_never_returns_something_worse_than_it_was_given(trees: list[Tree]) -> None:
    seen: list[torch.Tensor] = []
    evaluate = scripted([1.0, *[0.0] * 99], seen)
    result = train_step_dpo(tiny_model(), sibling_pairs(trees), FAST, evaluate=evaluate)
    assert result.best_update == 0
    torch.testing.assert_close(weights_of(result.model), weights_of(tiny_model()))


def test_a_resumed_run_remembers_its_best_state(trees: list[Tree], tmp_path: Path) -> None:
    pairs = sibling_pairs(trees)
    settings = replace(FAST, epochs=1, evaluate_every=2, save_every=2, output_dir=tmp_path)
    first = train_step_dpo(tiny_model(), pairs, settings, evaluate=scripted([0.0, 0.9, *[0.1] * 99], []))
    assert first.best_update == 2
    again = replace(settings, epochs=2, resume=True)
    second = train_step_dpo(tiny_model(), pairs, again, evaluate=scripted([0.2] * 99, []))
    assert second.updates > first.updates
    assert second.best_update == 2
    torch.testing.assert_close(weights_of(second.model), weights_of(first.model))


def test_training_is_reproducible(trees: list[Tree]) -> None:
    first, second = (train_step_dpo(tiny_model(), sibling_pairs(trees), FAST) for _ in range(2))
    assert torch.equal(weights_of(first.model), weights_of(second.model))


def test_nothing_is_written_without_an_output_folder(
    trees: list[Tree], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train_step_dpo(tiny_model(), sibling_pairs(trees), FAST)
    assert list(tmp_path.iterdir()) == []


def one_step(tokens: tuple[int, ...], recorded: tuple[float, ...]) -> tuple[Tree, list[Node]]:
    tree = Tree(Problem("p", ""), prompt_tokens=(3, 4))
    return tree, [tree.add(tree.root, Step((token, *tokens), "", recorded)) for token in (5, 6)]


def test_bad_input_is_refused_in_one_sentence(tmp_path: Path) -> None:
    _, (first, second) = one_step((7,), ())
    with pytest.raises(GradatimError, match="no recorded log-probabilities"):
        train_step_dpo(tiny_model(), [pair(first, second)], FAST)
    with pytest.raises(GradatimError, match="nobody knows how likely they were when they were sampled"):
        train(tiny_model(), make("objectives", {"policy_gradient": {"kl": 0.0}}), [labelled_step(first, 1.0)], FAST)
    with pytest.raises(GradatimError, match="needs a model with adapters"):
        train_step_dpo(tiny_model(), [pair(first, second)], FAST, reference="base")
    unknown: Any = "teacher"
    with pytest.raises(GradatimError, match="'teacher' is not known"):
        train_step_dpo(tiny_model(), [pair(first, second)], FAST, reference=unknown)
    with pytest.raises(GradatimError, match="nothing to learn"):
        train_step_dpo(tiny_model(), [], FAST)
    _, (first, second) = one_step((7,) * 200, (-1.0,) * 201)
    with (
        pytest.raises(GradatimError, match="every solution is longer than 128 tokens"),
        pytest.warns(UserWarning, match="are left out"),
    ):
        train_step_dpo(tiny_model(), [pair(first, second)], FAST)
    _, (first, second) = one_step((1000,), (-1.0,) * 2)
    with pytest.raises(GradatimError, match="token id 1000"):
        train_step_dpo(tiny_model(), [pair(first, second)], FAST)
    with pytest.raises(GradatimError, match="does not hold a model"):
        load_process_reward_model(tmp_path)
    with pytest.raises(GradatimError, match="output_dir"):
        TrainingSettings(save_every=5)
    with pytest.raises(GradatimError, match="learning_rate"):
        TrainingSettings(learning_rate=0)
    arguments = training_arguments(FAST, tmp_path)
    arguments.per_device_train_batch_size = 4
    objective: Objective = StepDpo()
    with pytest.raises(GradatimError, match="packed row"):
        TreeTrainer(tiny_model(), arguments, objective=objective, terms=[])


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_the_model_of_a_policy_is_refused_and_left_as_it_was(trees: list[Tree], lora: LoraSettings | None) -> None:
    model = TreeModel(tiny_model(), memory_bytes=0).model
    with pytest.raises(GradatimError, match="load a second copy of it to train"):
        train_step_dpo(model, sibling_pairs(trees), replace(FAST, lora=lora))
    assert not any("lora" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(weights_of(model), weights_of(tiny_model()))


def test_the_history_is_plain_numbers(trees: list[Tree]) -> None:
    result = train_step_dpo(tiny_model(), sibling_pairs(trees), FAST)
    json.dumps(result.history)
    assert {"loss", "grad_norm", "learning_rate", "rewards/margins"} <= set(result.history[0])


@pytest.mark.parametrize("kind", ["opt", "gpt2", "gpt_bigcode", "biogpt", "seed_oss", "gptj", "qwen2", "phi"])
def test_without_dropout_training_computes_what_evaluation_does(kind: str) -> None:
    """However a model draws: by modules, by numbers under names of its own, or by skipping layers."""
    model = model_of(kind)
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if name == "layerdrop" or (isinstance(value, float) and "dropout" in name):
                setattr(module, name, 0.5)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    tokens = torch.arange(5, 20)[None]
    with torch.no_grad():
        expected = model(input_ids=tokens).logits
        model.train()
        assert not torch.allclose(model(input_ids=tokens).logits, expected, atol=1e-3)
        disable_dropout(model)
        torch.testing.assert_close(model(input_ids=tokens).logits, expected, atol=1e-5, rtol=0)
