"""OREO: by slow loops over single paths, by its limits, by the optimum in closed form, by finite differences."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from gradatim.engine.head_shape import HeadShape
from gradatim.engine.heads import attach_heads, head_values, heads_of
from gradatim.engine.reader import Reader
from gradatim.errors import GradatimError
from gradatim.objectives import Oreo, PolicyGradient, Quantities
from gradatim.objectives.oreo import HEAD, Level
from gradatim.scorers.value_head import ValueHeadScorer
from gradatim.supervision import Group, SolutionLabels, Term, TrajectoryAdvantages, labelled_step
from gradatim.training.forward import measured
from gradatim.training.rows import build_row
from gradatim.tree import EndReason, Node, Tree
from training_models import path_log_probabilities, random_tree, tiny_model

LEVELS: tuple[Level, ...] = ("token", "step", "solution")


def with_head(model: Any) -> Any:
    attach_heads(model, {HEAD: HeadShape()})
    torch.manual_seed(7)
    for parameter in heads_of(model)[HEAD].parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def graded(seed: int) -> Tree:
    """A random tree whose leaves are finished, every other one right."""
    tree = random_tree(seed, nodes=12)
    for index, leaf in enumerate(tree.leaves()):
        leaf.step = replace(leaf.step, end=EndReason.END_OF_TEXT)
        leaf.reward = float(index % 2)
    return tree


def solutions(*seeds: int) -> list[Term]:
    return [term for seed in seeds for term in SolutionLabels()(graded(seed))]


def quantities(model: Any, objective: Oreo, terms: list[Term]) -> Quantities:
    return measured(model, build_row([objective.prepared(term) for term in terms]), objective)


def values_along(model: Any, node: Node) -> list[torch.Tensor]:
    """What the head says before each token of a step and at its end, from the step's own path alone."""
    hidden = model.base_model(torch.tensor([node.tokens_before_observation])).last_hidden_state[0]
    values = head_values(heads_of(model)[HEAD], hidden)
    return list(values[len(values) - len(node.step.tokens) - 1 :])


def naive(model: Any, objective: Oreo, term: Term) -> torch.Tensor:
    """By loops over the actions of a single path; each value and each log-ratio from a pass of its own."""
    actions: list[tuple[torch.Tensor, torch.Tensor]] = []  # log-ratio and value before
    divergences: list[torch.Tensor] = []
    path, outcome = term.groups[0].nodes[-1].path()[1:], term.targets[0]
    for node in path:
        recorded = torch.tensor(node.step.log_probabilities)
        ratios, values = path_log_probabilities(model, node) - recorded, values_along(model, node)
        divergences += [ratio.exp() * ratio - ratio.exp() + 1 for ratio in ratios]
        if objective.level == "token":
            actions += list(zip(ratios, values[:-1], strict=True))
        else:
            actions.append((ratios.sum(), values[0]))
    if objective.level == "solution":
        actions = [(sum((ratio for ratio, _ in actions), torch.zeros(())), actions[0][1])]
    end = values_along(model, path[-1])[-1]
    policy, value = torch.zeros(()), (end - outcome) ** 2
    for place, (ratio, before) in enumerate(actions):
        later = sum(float(after.detach()) for after, _ in actions[place + 1 :])
        target = outcome - objective.beta * later
        policy = policy + (before.detach() - target + objective.beta * ratio) ** 2
        value = value + (before - target + objective.beta * ratio.detach()) ** 2
    return (
        policy / len(actions)
        + objective.value * value / (len(actions) + 1)
        + objective.kl * sum(divergences, torch.zeros(())) / len(divergences)
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("options", [{"beta": 0.4, "kl": 0.0}, {"beta": 0.2, "kl": 0.5, "value": 3.0}], ids=str)
def test_losses_and_gradients_equal_those_of_loops_over_single_paths(level: Level, options: dict[str, Any]) -> None:
    model, objective = with_head(tiny_model()), Oreo(level=level, **options)
    terms = solutions(2, 5)
    of = quantities(model, objective, terms)
    assert of.lengths.shape[0] < of.step_of.shape[0], "solutions share steps, which are run once"
    found = objective.loss(of).per_term
    expected = torch.stack([naive(model, objective, term) for term in terms])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(each.sum(), parameters) for each in (found, expected))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("level", LEVELS)
def test_gradients_equal_finite_differences(level: Level) -> None:
    """Of a loss whose stopped parts are held at what they are, in float64."""
    model, objective, terms = with_head(tiny_model()), Oreo(level=level, beta=0.5, kl=0.2, value=1.0), solutions(2)
    of = quantities(model, objective, terms)
    doubled = {name: value.detach().double() for name, value in of.heads.items()}
    ratios = (of.log_probabilities - of.reference).detach().double()
    of = replace(of, reference=of.reference.double(), target=of.target.double(), heads=doubled)

    def loss(log_probabilities: torch.Tensor, heads: dict[str, torch.Tensor]) -> torch.Tensor:
        return objective.loss(replace(of, log_probabilities=log_probabilities, heads=heads)).per_term.sum()

    policy = (of.reference + ratios).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(policy, doubled), policy)
    actions = objective._actions(of, ratios)
    held = actions.value - of.target[actions.group] + objective.beta * of.later(actions.ratio, actions.group)
    counts = torch.zeros_like(of.target).index_add(0, actions.group, torch.ones_like(actions.ratio))

    def with_stops_held(at: torch.Tensor) -> float:
        moved = objective._actions(of, at - of.reference).ratio
        away = (at - of.reference).exp() * (at - of.reference) - (at - of.reference).exp() + 1
        policy_loss = ((held + objective.beta * moved).square() / counts[actions.group]).sum()
        return float(policy_loss + objective.kl * (of.sums(away) / of.tokens()).sum())

    for place in range(0, len(policy), 3):
        ends = []
        for sign in (1, -1):
            at = policy.detach().clone()
            at[place] += sign * 1e-6
            ends.append(with_stops_held(at))
        assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-5)
    names = list(doubled)

    def by_values(*values: torch.Tensor) -> torch.Tensor:
        stopped = replace(of, heads=dict(zip(names, values, strict=True)))
        acted = objective._actions(stopped, ratios)
        target = of.target[acted.group] - objective.beta * (acted.ratio + of.later(acted.ratio, acted.group))
        value = torch.zeros_like(of.target).index_add(0, acted.group, (acted.value - target).square())
        end = (of.ends(stopped.heads[HEAD]) - of.target).square()
        return ((value + end) / (counts + 1)).sum()

    given = tuple(doubled[name].clone().requires_grad_() for name in names)
    assert torch.autograd.gradcheck(by_values, given)
    through = torch.autograd.grad(loss(policy.detach(), dict(zip(names, given, strict=True))), given, allow_unused=True)
    expected = torch.autograd.grad(by_values(*given), given, allow_unused=True)
    for own, other in zip(through, expected, strict=True):
        assert (own is None) == (other is None)
        if own is not None and other is not None:
            torch.testing.assert_close(own, other)


def at_reference(of: Quantities) -> Quantities:
    return replace(of, reference=of.log_probabilities.detach(), behaviour=of.log_probabilities.detach())


def test_at_the_reference_it_is_a_policy_gradient_with_the_value_as_baseline() -> None:
    model, objective, terms = with_head(tiny_model()), Oreo(level="step", beta=0.3, kl=0.7), solutions(3)
    of = at_reference(quantities(model, objective, terms))
    (ours,) = torch.autograd.grad(objective.loss(of).per_term.sum(), of.log_probabilities)
    advantages = of.target[of.group_of] - of.heads[f"before:{HEAD}"].detach()[of.step_of]
    plain = replace(of, step_target=advantages)
    surrogate = PolicyGradient(unit="tokens", kl=0.0).loss(plain)  # a sum over tokens
    steps = torch.bincount(of.group_of).to(ours.dtype)
    (theirs,) = torch.autograd.grad((surrogate.per_term / steps).sum(), of.log_probabilities)
    torch.testing.assert_close(ours, 2 * objective.beta * theirs, atol=1e-6, rtol=1e-4)


def test_without_a_penalty_the_value_is_the_regression_of_outcomes() -> None:
    model, terms = with_head(tiny_model()), solutions(3)
    objective = Oreo(level="step", beta=1e-9, kl=0.0)
    of = quantities(model, objective, terms)
    found = objective.loss(of).metrics["value_error"].tolist()
    for value, term in zip(found, terms, strict=True):
        path, outcome = term.groups[0].nodes[-1].path()[1:], term.targets[0]
        said = [float(values_along(model, node)[0].detach()) for node in path]
        said.append(float(values_along(model, path[-1])[-1].detach()))
        assert value == pytest.approx(sum((each - outcome) ** 2 for each in said) / len(said), abs=1e-5)


def test_a_solution_of_one_step_is_one_action() -> None:
    model, tree = with_head(tiny_model()), graded(3)
    terms = [labelled_step(node, 1.0) for node in tree.root.children]
    step, solution = (Oreo(level=level, beta=0.3).loss(quantities(model, Oreo(), terms)) for level in LEVELS[1:])
    torch.testing.assert_close(step.per_term, solution.per_term)


@pytest.mark.parametrize("level", LEVELS)
def test_both_losses_vanish_at_the_optimum_in_closed_form(level: Level) -> None:
    """Two steps of one token each, of which every one that could come is drawn: the soft value is a log-mean-exp."""
    beta, first, second = 0.4, [0.7, 0.3], [[0.5, 0.5], [0.2, 0.8]]
    outcomes = [[1.0, 0.0], [0.0, 1.0]]
    later = [
        beta * math.log(sum(p * math.exp(r / beta) for p, r in zip(second[i], outcomes[i], strict=True)))
        for i in range(2)
    ]
    start = beta * math.log(sum(p * math.exp(v / beta) for p, v in zip(first, later, strict=True)))
    assert 0 < start < 1
    reference = [math.log(p) for p in first] + [math.log(p) for row in second for p in row]
    better = [(later[i] - start) / beta for i in range(2)]
    better += [(outcomes[i][j] - later[i]) / beta for i in range(2) for j in range(2)]
    before = [start, start, later[0], later[0], later[1], later[1]]
    paths = [(i, 2 + 2 * i + j, outcomes[i][j]) for i in range(2) for j in range(2)]
    ends = torch.full((6,), math.nan, dtype=torch.float64)
    for _, last, outcome in paths:
        ends[last] = outcome
    of = Quantities(
        token_step=torch.arange(6),
        lengths=torch.ones(6, dtype=torch.long),
        step_of=torch.tensor([step for i, last, _ in paths for step in (i, last)]),
        group_of=torch.arange(4).repeat_interleave(2),
        step_weight=torch.ones(8, dtype=torch.float64),
        step_target=torch.full((8,), math.nan, dtype=torch.float64),
        group_term=torch.arange(4),
        target=torch.tensor([outcome for *_, outcome in paths], dtype=torch.float64),
        weight=torch.ones(4, dtype=torch.float64),
        label_smoothing=torch.zeros(4, dtype=torch.float64),
        log_probabilities=torch.tensor([r + b for r, b in zip(reference, better, strict=True)], dtype=torch.float64),
        reference=torch.tensor(reference, dtype=torch.float64),
        behaviour=torch.zeros(0),
        heads={
            HEAD: ends,
            f"before:{HEAD}": torch.tensor(before, dtype=torch.float64),
            f"tokens:{HEAD}": torch.tensor(before, dtype=torch.float64),
        },
    )
    assert sum(math.exp(value) for value in of.log_probabilities[:2].tolist()) == pytest.approx(1)
    found = Oreo(level=level, beta=beta, kl=0.0).loss(of)
    torch.testing.assert_close(found.per_term, torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    mean = Oreo(level=level, beta=beta).loss(of).metrics["kl"]
    assert bool((mean > 0).all())


def test_later_is_what_follows_in_the_same_group() -> None:
    row = build_row(solutions(2, 5))
    of = torch.rand(row.step_of.shape[0])
    found = row.later(of, row.group_of).tolist()
    groups = row.group_of.tolist()
    for place, group in enumerate(groups):
        expected = sum(float(of[i]) for i in range(place + 1, len(groups)) if groups[i] == group)
        assert found[place] == pytest.approx(expected, abs=1e-5)
    assert row.begins(row.lengths).tolist() == [
        int(row.lengths[row.step_of[groups.index(group)]]) for group in range(row.target.shape[0])
    ]


def test_its_value_is_read_as_it_is_by_the_scorer() -> None:
    model, tree = with_head(tiny_model()), graded(4)
    with torch.no_grad():
        heads_of(model)[HEAD].bias.fill_(3.0)
    nodes = tree.nodes[1:]
    expected = [float(values_along(model, node)[-1].detach()) for node in nodes]
    asyncio.run(ValueHeadScorer(Reader(model), "value_head", HEAD, output="raw").score(nodes))
    assert [node.scores["value_head"] for node in nodes] == pytest.approx(expected, abs=1e-4)
    assert max(expected) > 1, "a sigmoid would have bounded it"


def test_what_it_cannot_learn_from_is_refused() -> None:
    with pytest.raises(GradatimError, match="whole solutions"):
        Oreo().prepared(Term((Group((graded(2).nodes[1],), targets=(0.5,)),)))
    Oreo().check(SolutionLabels())
    with pytest.raises(GradatimError, match="learns from labels and values between 0 and 1"):
        Oreo().check(TrajectoryAdvantages())
