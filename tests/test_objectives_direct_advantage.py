"""Regression of advantages: by slow loops over single steps, by its limits, by finite differences, and that it improves
a policy that is small enough to know all of."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.objectives import DirectAdvantage, PolicyGradient, Quantities
from gradatim.supervision import Group, SiblingAdvantages, Term, labelled_step, path_term
from gradatim.training.forward import measured
from gradatim.training.rows import build_row
from gradatim.tree import Tree
from training_models import path_log_probabilities, random_tree, tiny_model


def advantaged(tree: Tree, seed: int = 0) -> list[Term]:
    """Single steps, and paths with an advantage for each step but one."""
    source = random.Random(seed)
    terms = [labelled_step(node, source.uniform(-1, 1), float(node.id % 3)) for node in tree.nodes[1:6]]
    for leaf in tree.leaves():
        targets = [source.uniform(-1, 1) for _ in leaf.path()[1:]]
        if len(targets) > 2:
            targets[1] = math.nan
        terms.append(Term((Group(tuple(leaf.path()[1:]), targets=tuple(targets)),), 1.5, (1.0,)))
    return terms


def quantities(model: Any, objective: Any, terms: list[Term]) -> Quantities:
    return measured(model, build_row([objective.prepared(term) for term in terms]), objective)


def naive(model: Any, objective: DirectAdvantage, term: Term) -> torch.Tensor:
    (group,) = term.groups
    errors = []
    for node, target in zip(group.nodes, group.targets or term.targets, strict=True):
        if not math.isnan(target):
            ratio = path_log_probabilities(model, node).sum() - sum(node.step.log_probabilities)
            errors.append((target / objective.beta - ratio) ** 2 / 2)
    return sum(errors, torch.zeros(())) / len(errors)


@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_losses_and_gradients_equal_those_of_loops_over_single_steps(beta: float) -> None:
    model, objective = tiny_model(), DirectAdvantage(beta=beta)
    terms = advantaged(random_tree(3, nodes=14))
    found = objective.loss(quantities(model, objective, terms)).per_term
    expected = torch.stack([naive(model, objective, term) for term in terms])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-5)
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(each.sum(), parameters) for each in (found, expected))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, atol=1e-3, rtol=1e-3)


def test_gradients_equal_finite_differences() -> None:
    objective, terms = DirectAdvantage(beta=0.3), advantaged(random_tree(3, nodes=14))
    of = quantities(tiny_model(), objective, terms)
    of = replace(of, reference=of.reference.double(), step_target=of.step_target.double())

    def loss(log_probabilities: torch.Tensor) -> torch.Tensor:
        return (of.weight * objective.loss(replace(of, log_probabilities=log_probabilities)).per_term).sum()

    assert torch.autograd.gradcheck(loss, (of.log_probabilities.detach().double().requires_grad_(),))


def test_at_the_reference_it_is_the_plain_policy_gradient_over_beta() -> None:
    model, objective, terms = tiny_model(), DirectAdvantage(beta=0.2), advantaged(random_tree(3, nodes=14))
    of = quantities(model, objective, terms)
    own = of.log_probabilities.detach()
    of = replace(of, reference=own, behaviour=own)
    (ours,) = torch.autograd.grad(objective.loss(of).per_term.sum(), of.log_probabilities)
    plain = PolicyGradient(unit="tokens").loss(of).per_term / of.by_term((of.step_weight > 0).float())
    (theirs,) = torch.autograd.grad(plain.sum(), of.log_probabilities)
    torch.testing.assert_close(ours, theirs / objective.beta, atol=1e-5, rtol=1e-4)


def test_a_great_beta_leaves_only_to_stay_at_the_reference() -> None:
    objective, terms = DirectAdvantage(beta=1e9), advantaged(random_tree(3, nodes=14))
    of = quantities(tiny_model(), objective, terms)
    ratios = of.steps(of.log_probabilities - of.reference)[of.step_of]
    expected = of.by_term(of.step_weight * ratios.square() / 2) / of.by_term(of.step_weight)
    torch.testing.assert_close(objective.loss(of).per_term, expected)
    own = of.log_probabilities
    at_reference = objective.loss(replace(of, reference=own.detach())).per_term
    torch.testing.assert_close(at_reference, torch.zeros_like(at_reference))


def steps_of_one_place(
    log_probabilities: torch.Tensor, reference: torch.Tensor, advantages: torch.Tensor
) -> Quantities:
    """All steps that could come at one place, one token each, weighed by how likely the reference draws them."""
    count = len(advantages)
    each = torch.arange(count)
    return Quantities(
        token_step=each,
        lengths=torch.ones(count, dtype=torch.long),
        step_of=each,
        group_of=each,
        step_weight=torch.ones(count, dtype=torch.float64),
        step_target=advantages,
        group_term=each,
        target=torch.full((count,), math.nan, dtype=torch.float64),
        weight=reference.exp(),
        label_smoothing=torch.zeros(count, dtype=torch.float64),
        log_probabilities=log_probabilities,
        reference=reference,
        behaviour=torch.zeros(0),
        heads={},
    )


def gain(policy: torch.Tensor, reference: torch.Tensor, advantages: torch.Tensor, beta: float) -> torch.Tensor:
    return (policy.exp() * (advantages - beta * (policy - reference))).sum()


places = st.integers(2, 5).flatmap(
    lambda count: st.tuples(
        st.lists(st.floats(-2, 2), min_size=count, max_size=count),
        st.lists(st.floats(0, 1), min_size=count, max_size=count),
        st.floats(0.1, 1),
    )
)


@settings(max_examples=12, deadline=None)
@given(places)
def test_its_minimum_gains_on_the_reference(place: tuple[list[float], list[float], float]) -> None:
    """The paper's theorem, with exact advantages and all steps drawn; the gradient at the reference is the gain's."""
    logits, values, beta = place
    reference = torch.tensor(logits, dtype=torch.float64).log_softmax(0)
    worth = torch.tensor(values, dtype=torch.float64)
    advantages = worth - (reference.exp() * worth).sum()
    objective = DirectAdvantage(beta=beta)
    own = reference.clone().requires_grad_()

    def loss() -> torch.Tensor:
        of = steps_of_one_place(own.log_softmax(0), reference, advantages)
        return (of.weight * objective.loss(of).per_term).sum()

    (first,) = torch.autograd.grad(loss(), own)
    (gained,) = torch.autograd.grad(gain(own.log_softmax(0), reference, advantages, beta), own)
    torch.testing.assert_close(-beta * first, gained, atol=1e-9, rtol=1e-6)
    optimizer = torch.optim.LBFGS([own], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    after = gain(own.detach().log_softmax(0), reference, advantages, beta)
    assert float(after) >= -1e-9
    if float(worth.max() - worth.min()) > 0.1:
        assert float(after) > 0


def test_what_has_no_advantage_is_refused() -> None:
    tree = random_tree(3)
    with pytest.raises(GradatimError, match="'direct_advantage' needs targets"):
        DirectAdvantage().prepared(path_term(tree.nodes[1]))
    with pytest.raises(GradatimError, match="no advantage for any of its steps"):
        DirectAdvantage().prepared(labelled_step(tree.nodes[1], math.nan))


def test_places_where_the_values_hardly_differ_are_left_out() -> None:
    tree = random_tree(4, nodes=16)
    for node in tree.nodes[1:]:
        assert node.parent is not None
        apart = 0.25 if node.parent.is_root else 0.0625
        node.scores["value"] = apart * node.parent.children.index(node)
    assert sum(len(node.children) > 1 for node in tree.nodes) > 1
    kept = list(SiblingAdvantages(normalize="mean", min_gap=0.25)(tree))
    assert [term.ends[0] for term in kept] == tree.root.children
