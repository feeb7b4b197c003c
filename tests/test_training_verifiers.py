"""Objectives of trained verifiers: each against a slow computation path by path, and in its limits."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gradatim.engine.head_shape import HeadShape
from gradatim.engine.heads import HEADS_FILE, attach_heads, heads_of, saved_heads
from gradatim.engine.loading import load_model
from gradatim.engine.reader import Reader
from gradatim.errors import GradatimError
from gradatim.objectives import (
    Contribution,
    Dpo,
    HiddenVerifier,
    ImplicitReward,
    Objective,
    ProcessReward,
    Quantities,
    Ranking,
    Value,
    dpo_loss,
)
from gradatim.recipes.recipe import Learn
from gradatim.scorers.implicit import ImplicitScorer
from gradatim.supervision import Group, SolutionLabels, Term, labelled_step, pair, path_term
from gradatim.training import LoraSettings, TrainingSettings, save_model, train
from gradatim.training.forward import measured
from gradatim.training.rows import build_row
from gradatim.tree import EndReason, Node, Tree
from tiny_models import word_tokenizer
from training_models import path_log_probabilities, random_tree, tiny_model

SETTINGS = TrainingSettings(learning_rate=1e-2, warmup_ratio=0.0, epochs=12, tokens_per_batch=60, log_every=1)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def graded(seed: int) -> Tree:
    """A random tree whose leaves are finished, every other one right."""
    tree = random_tree(seed, nodes=14)
    for index, leaf in enumerate(tree.leaves()):
        leaf.step = replace(leaf.step, end=EndReason.END_OF_TEXT)
        leaf.reward = float(index % 2)
    return tree


def quantities(model: Any, objective: Objective, terms: list[Term]) -> Quantities:
    return measured(model, build_row([objective.prepared(term) for term in terms]), objective)


def with_heads(model: Any, shapes: dict[str, HeadShape]) -> Any:
    """The model with heads that are drawn at random throughout."""
    attach_heads(model, shapes)
    torch.manual_seed(3)
    for name in shapes:
        for parameter in heads_of(model)[name].parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def said(model: Any, head: str, node: Node) -> float:
    """What a head says at the end of a step, from the step's own path alone."""
    hidden = model.base_model(torch.tensor([node.tokens_before_observation])).last_hidden_state[0, -1]
    return float(heads_of(model)[head](hidden))


def lists(logits: list[list[float]]) -> Quantities:
    """Rankings of single steps of one token, with what the head says of each."""
    sizes = [len(each) for each in logits]
    count = sum(sizes)
    none = torch.full((count,), math.nan, dtype=torch.float64)
    return Quantities(
        token_step=torch.arange(count),
        lengths=torch.ones(count),
        step_of=torch.arange(count),
        group_of=torch.arange(count),
        step_weight=torch.ones(count, dtype=torch.float64),
        step_target=none,
        group_term=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        target=none,
        weight=torch.ones(len(sizes), dtype=torch.float64),
        label_smoothing=torch.zeros(len(sizes), dtype=torch.float64),
        log_probabilities=torch.zeros(0),
        reference=torch.zeros(0),
        behaviour=torch.zeros(0),
        heads={"score": torch.tensor([value for each in logits for value in each], dtype=torch.float64)},
    )


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=2, max_size=4), min_size=1, max_size=4),
    st.sampled_from(["logistic", "hinge"]),
    st.none() | st.floats(0, 2),
)
def test_rankings_equal_their_formula(logits: list[list[float]], comparison: Any, margin: float | None) -> None:
    found = Ranking(comparison=comparison, margin=margin).loss(lists(logits))
    m = margin if margin is not None else {"logistic": 0.0, "hinge": 1.0}[comparison]
    for place, each in enumerate(logits):
        gaps = [better - worse for i, better in enumerate(each) for worse in each[i + 1 :]]
        losses = [max(0.0, m - gap) if comparison == "hinge" else -math.log(sigmoid(gap - m)) for gap in gaps]
        assert float(found.per_term[place]) == pytest.approx(sum(losses) / len(losses), abs=1e-9)
        assert float(found.metrics["accuracy"][place]) == pytest.approx(sum(gap > 0 for gap in gaps) / len(gaps))


def test_a_pair_is_a_preference_between_logits_and_a_kept_margin_asks_no_more() -> None:
    logits = [[0.4, -0.3], [-1.0, 0.5]]
    as_ratios = dpo_loss(torch.tensor(logits), torch.zeros(2, 2), beta=1.0)
    torch.testing.assert_close(Ranking().loss(lists(logits)).per_term.float(), as_ratios)
    of = lists([[1.5, 0.2], [0.5, 0.2]])
    score = of.heads["score"].requires_grad_()
    Ranking(comparison="hinge").loss(replace(of, heads={"score": score})).per_term.sum().backward()
    assert score.grad is not None
    assert score.grad.tolist() == [0.0, 0.0, -1.0, 1.0]


def test_ranked_steps_are_read_at_their_ends() -> None:
    model, tree = with_heads(tiny_model(), {"score": HeadShape()}), random_tree(4, nodes=16)
    pairs = [pair(node.children[0], other) for node in tree.nodes for other in node.children[1:]]
    triple = next(node for node in tree.nodes if len(node.children) > 2).children[:3]
    terms = [*pairs, Term(tuple(Group((child,)) for child in triple))]
    found = Ranking().loss(quantities(model, Ranking(), terms)).per_term.tolist()
    for value, term in zip(found, terms, strict=True):
        logits = [said(model, "score", end) for end in term.ends]
        gaps = [better - worse for i, better in enumerate(logits) for worse in logits[i + 1 :]]
        assert value == pytest.approx(sum(-math.log(sigmoid(gap)) for gap in gaps) / len(gaps), abs=1e-5)


def test_an_outcome_model_is_aimed_at_the_ends_of_solutions_or_at_every_step() -> None:
    model, tree = with_heads(tiny_model(), {"score": HeadShape()}), graded(2)
    for construction in (SolutionLabels(), SolutionLabels(steps="all")):
        terms = construction(tree)
        found = ProcessReward().loss(quantities(model, ProcessReward(), terms)).per_term.tolist()
        for value, term in zip(found, terms, strict=True):
            leaf = term.ends[0]
            steps = leaf.path()[1:] if construction.steps == "all" else [leaf]
            right = [sigmoid(said(model, "score", step)) for step in steps]
            losses = [-math.log(p if leaf.correct else 1 - p) for p in right]
            assert value == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_implicit_rewards_are_log_ratios_of_whole_solutions() -> None:
    model, tree, objective = tiny_model(), graded(3), ImplicitReward(beta=0.3)
    terms = SolutionLabels()(tree)
    found = objective.loss(quantities(model, objective, terms))
    for place, term in enumerate(terms):
        path = term.ends[0].path()[1:]
        own = sum(float(path_log_probabilities(model, step).detach().sum()) for step in path)
        reward = 0.3 * (own - sum(sum(step.step.log_probabilities) for step in path))
        right = sigmoid(reward)
        expected = -math.log(right if term.ends[0].correct else 1 - right)
        assert float(found.per_term[place].detach()) == pytest.approx(expected, abs=1e-4)
        assert float(found.metrics["rewards/mean"][place]) == pytest.approx(reward, abs=1e-4)
    step = objective.prepared(labelled_step(terms[0].ends[0], 1.0))
    assert step.groups[0].nodes == tuple(terms[0].ends[0].path()[1:])


def test_the_scorer_reads_the_reward_that_was_learned() -> None:
    """The increments that the scorer `implicit` gives the steps of a solution sum to the reward of its outcome."""
    model, reference, tree = tiny_model(), tiny_model(seed=1), graded(3)
    for node in tree.nodes[1:]:
        recorded = tuple(path_log_probabilities(reference, node).detach().tolist())
        node.step = replace(node.step, log_probabilities=recorded)
    terms, objective = SolutionLabels()(tree), ImplicitReward(beta=0.3)
    rewards = objective.loss(quantities(model, objective, terms)).metrics["rewards/mean"].tolist()
    readers = Reader(model), Reader(reference)
    for form in ("increment", "accumulated"):
        asyncio.run(ImplicitScorer(*readers, form, beta=0.3, form=form).score(tree.nodes[1:]))  # type: ignore[arg-type]
    for reward, term in zip(rewards, terms, strict=True):
        leaf = term.ends[0]
        assert leaf.scores["accumulated"] == pytest.approx(reward, abs=1e-4)
        assert sum(step.scores["increment"] for step in leaf.path()[1:]) == pytest.approx(reward, abs=1e-4)


def test_at_the_reference_a_right_and_a_wrong_solution_teach_what_dpo_does() -> None:
    model, tree = tiny_model(), graded(3)
    for node in tree.nodes[1:]:
        recorded = tuple(path_log_probabilities(model, node).detach().tolist())
        node.step = replace(node.step, log_probabilities=recorded)
    right, wrong = (next(leaf for leaf in tree.leaves() if leaf.correct is which) for which in (True, False))
    apart = [Term((path_term(leaf).groups), targets=(float(bool(leaf.correct)),)) for leaf in (right, wrong)]
    gradients = []
    for objective, terms in ((ImplicitReward(beta=0.2), apart), (Dpo(beta=0.2), [pair(right, wrong)])):
        model.zero_grad()
        objective.loss(quantities(model, objective, terms)).per_term.sum().backward()
        gradients.append(torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]))
    assert float(gradients[0].abs().max()) > 1e-3
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("width", [None, 5])
def test_contributions_sum_to_outcomes(width: int | None) -> None:
    objective = Contribution(width=width)
    model, tree = with_heads(tiny_model(), dict(objective.heads)), graded(2)
    terms = SolutionLabels()(tree)
    found = objective.loss(quantities(model, objective, terms)).per_term.tolist()
    for value, term in zip(found, terms, strict=True):
        total = sum(said(model, "contribution", step) for step in term.ends[0].path()[1:])
        assert value == pytest.approx((total - term.targets[0]) ** 2, abs=1e-4)
    single = next(leaf for leaf in tree.leaves() if leaf.depth == 1)
    regression = objective.loss(quantities(model, objective, [labelled_step(single, 1.0)])).per_term
    assert float(regression.detach()) == pytest.approx((said(model, "contribution", single) - 1.0) ** 2, abs=1e-5)


@pytest.mark.parametrize(
    "objective",
    [Ranking(), Ranking(comparison="hinge", margin=0.3), ImplicitReward(beta=0.4), Contribution(), HiddenVerifier()],
    ids=str,
)
def test_gradients_equal_finite_differences(objective: Objective) -> None:
    """By the quantities that a model gives, in float64."""
    groups = 2 if isinstance(objective, Ranking) else 1
    of = replace(lists([[0.0] * groups] * (4 // groups)), target=torch.tensor([0.9, 0.0, 1.0, 0.5]).double())

    def loss(log_probabilities: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
        given = replace(of, log_probabilities=log_probabilities, heads=dict.fromkeys(objective.heads, heads))
        return objective.loss(replace(given, reference=torch.zeros(4).double())).per_term.sum()

    given = [torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in ([-2.0, -1, -3, -0.5],) * 2]
    assert torch.autograd.gradcheck(loss, given)


@pytest.mark.parametrize("objective", [HiddenVerifier(width=16), HiddenVerifier(width=None)], ids=str)
def test_a_hidden_verifier_learns_and_its_model_stays_as_it_is(objective: HiddenVerifier, tmp_path: Path) -> None:
    trees = [random_tree(seed, nodes=10) for seed in range(4)]
    terms = [labelled_step(node, float(node.step.tokens[-1] > 48)) for tree in trees for node in tree.nodes[1:]]
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = train(model, objective, terms, replace(SETTINGS, learning_rate=3e-2, weight_decay=0.1))
    assert result.history[-1]["loss"] < 0.8 * result.history[0]["loss"]
    assert result.history[-1]["accuracy"] > 0.75
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value), f"{name} was changed"
    assert all(parameter.requires_grad for parameter in model.parameters()), "it may be trained again"
    save_model(model, word_tokenizer(), tmp_path / "policy")
    assert saved_heads(tmp_path / "policy") == ["verifier"]
    again = load_model(AutoModelForCausalLM, tmp_path / "policy", dtype=torch.float32).eval()
    node = terms[3].ends[0]
    assert said(again, "verifier", node) == pytest.approx(said(model, "verifier", node), abs=1e-6)
    assert abs(said(model, "verifier", node)) > 0.1
    train(again, Value(), terms, replace(SETTINGS, epochs=1))  # another head beside it, and the model moves
    assert sorted(heads_of(again)) == ["value", "verifier"]


def test_heads_of_two_layers_are_the_same_each_time_and_say_one_half_at_first() -> None:
    first, second = tiny_model(), tiny_model()
    for seed, model in enumerate((first, second)):
        torch.manual_seed(seed)
        attach_heads(model, {"verifier": HeadShape(outputs=2, hidden=6)})
    hidden = torch.randn(3, 32)
    head = heads_of(first)["verifier"]
    assert head(hidden).tolist() == [[0.0, 0.0]] * 3
    for one, other in zip(head.parameters(), heads_of(second)["verifier"].parameters(), strict=True):
        assert torch.equal(one, other)


def test_heads_of_two_layers_are_trained_whole_beside_adapters(tmp_path: Path) -> None:
    terms = [term for seed in range(3) for term in SolutionLabels()(graded(seed))]
    objective = Contribution(width=8)
    lora = LoraSettings(rank=2, target_modules="all-linear")
    result = train(tiny_model(), objective, terms, replace(SETTINGS, epochs=2, lora=lora))
    trainable = [name for name, parameter in result.model.named_parameters() if parameter.requires_grad]
    assert not any("gradatim_heads" in name and "lora" in name for name in trainable)
    save_model(result.model, word_tokenizer(), tmp_path / "policy")
    weights = load_file(tmp_path / "policy" / HEADS_FILE)
    assert set(weights) == {f"contribution.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert float(weights["contribution.2.weight"].abs().max()) > 0


def test_bad_input_is_refused_in_one_sentence(tmp_path: Path) -> None:
    tree = graded(2)
    leaf = next(tree.leaves())
    with pytest.raises(GradatimError, match="'ranking' learns from pairs or rankings, not from single steps"):
        Ranking().prepared(labelled_step(leaf, 1.0))
    with pytest.raises(GradatimError, match="its own path"):
        Ranking().prepared(pair(leaf, leaf.path()[1]))
    for objective in (ImplicitReward(), Contribution()):
        with pytest.raises(GradatimError, match="needs targets"):
            objective.prepared(path_term(leaf))
        with pytest.raises(GradatimError, match="outcomes of whole solutions, and a term names none"):
            objective.prepared(Term((Group((leaf,), targets=(1.0,)),)))
        with pytest.raises(GradatimError, match="between 0 and 1"):
            objective.prepared(labelled_step(leaf, 2.0))
    with pytest.raises(GradatimError, match="'hidden_verifier' trains a head on a model that stays as it is"):
        train(tiny_model(), HiddenVerifier(), [labelled_step(leaf, 1.0)], replace(SETTINGS, lora=LoraSettings(rank=2)))
    with pytest.raises(ValueError, match="leave lora out"):
        Learn(objective="hidden_verifier", data=["step_labels"], training={"lora": {"rank": 2}})
    with pytest.raises(GradatimError, match="width"):
        HiddenVerifier(width=0)
    with pytest.raises(GradatimError, match="has a head 'verifier' of 1 output, and one of 1 output and a hid"):
        attach_heads(with_heads(tiny_model(), {"verifier": HeadShape()}), HiddenVerifier().heads)
    with pytest.raises(GradatimError, match="margin"):
        Ranking(margin=-1.0)


def test_values_are_learned_beside_what_is_imitated() -> None:
    model, tree, objective = with_heads(tiny_model(), {"value": HeadShape()}), graded(3), Value(nll=0.5)
    leaves = [leaf for leaf in tree.leaves() if leaf.correct]
    labelled = [labelled_step(node, 0.25) for node in tree.nodes[1:4]]
    found = objective.loss(quantities(model, objective, [*map(path_term, leaves), *labelled]))
    for place, leaf in enumerate(leaves):
        own = torch.cat([path_log_probabilities(model, step).detach() for step in leaf.path()[1:]])
        assert float(found.per_term[place].detach()) == pytest.approx(-0.5 * float(own.mean()), abs=1e-5)
    alone = Value().loss(quantities(model, Value(), labelled)).per_term
    torch.testing.assert_close(found.per_term[len(leaves) :], alone, atol=1e-5, rtol=0)
    with pytest.raises(GradatimError, match="'value' needs targets"):
        Value().prepared(path_term(leaves[0]))
