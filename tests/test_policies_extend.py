"""Some steps at a time, another number of draws below each node, another account: what that changes and what not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.budget import Account, Budget
from gradatim.policies.base import Policy, Sampling
from gradatim.tree import Node, Tree
from scripted_countdown import DEEP_PROBLEM, new_tree, random_policy
from test_policies_exact import SHORT, assert_exact, make_policy, make_tree, reference, structure

GREEDY = Sampling(temperature=0)


def extend(policy: Policy, nodes: Sequence[Node], n: int | Sequence[int] = 1, **options: Any) -> list[Node]:
    return asyncio.run(policy.extend(nodes, n, **options))


def shape(tree: Tree) -> list[tuple[str, int, int, int]]:
    """A tree whatever the order in which its nodes came about."""
    return sorted((node.text, node.multiplicity, node.key, node.draws) for node in tree.nodes)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 100), n=st.integers(0, 12), k=st.integers(1, 3), sampling=st.sampled_from([Sampling(), GREEDY])
)
def test_k_steps_and_k_more_are_twice_as_many(seed: int, n: int, k: int, sampling: Sampling) -> None:
    """Below each node as often as it was drawn."""
    policy = random_policy(noise=0.2)
    at_once, in_parts = new_tree(DEEP_PROBLEM, seed=seed), new_tree(DEEP_PROBLEM, seed=seed)
    expected = extend(policy, [at_once.root], n, steps=2 * k, sampling=sampling)
    first = extend(policy, [in_parts.root], n, steps=k, sampling=sampling)
    drawn = Counter(first)
    more = extend(policy, list(drawn), list(drawn.values()), steps=k, sampling=sampling)
    assert len(expected) == len(first) == n
    assert all(node.depth == 2 * k or not node.open for node in expected)
    ends = [*(node for node in first if not node.open), *more]
    assert Counter(node.text for node in ends) == Counter(node.text for node in expected)
    assert shape(in_parts) == shape(at_once)
    assert in_parts.budget == at_once.budget


def mixed(policy: Policy, tree: Tree, counts: list[int], steps: int | None, *, together: bool) -> list[Node]:
    """Draws below nodes of a tree, some of them below others, in one call or in a call for each."""
    extend(policy, [tree.root], 3)
    nodes = [node for node in tree.nodes if node.open]
    counts = counts[: len(nodes)]
    if together:
        found = extend(policy, nodes[: len(counts)], counts, steps=steps)
    else:
        calls = [extend(policy, [node], count, steps=steps) for node, count in zip(nodes, counts, strict=False)]
        found = [node for each in calls for node in each]
    assert len(found) == sum(counts) or tree.budget.limit is not None
    return found


COUNTS = st.lists(st.integers(0, 3), min_size=1, max_size=4)
STEPS = st.none() | st.integers(1, 3)


@settings(max_examples=60)
@given(counts=COUNTS, steps=STEPS, limit=st.none() | st.integers(0, 400))
def test_numbers_for_each_node_are_calls_for_each_node(counts: list[int], steps: int | None, limit: int | None) -> None:
    trees = [new_tree(DEEP_PROBLEM, limit=limit) for _ in range(2)]
    found = [mixed(random_policy(), tree, counts, steps, together=bool(place)) for place, tree in enumerate(trees)]
    assert [node.id for node in found[0]] == [node.id for node in found[1]]
    assert trees[0].to_json() == trees[1].to_json()


@settings(max_examples=10, deadline=None)
@given(counts=COUNTS, steps=STEPS, limit=st.none() | st.integers(0, 90))
def test_a_models_numbers_for_each_node_are_calls_for_each_node(
    counts: list[int], steps: int | None, limit: int | None
) -> None:
    trees = [Tree(make_tree().problem, budget=Budget(limit)) for _ in range(2)]
    found = [mixed(make_policy(), tree, counts, steps, together=bool(place)) for place, tree in enumerate(trees)]
    assert [node.tokens for node in found[0]] == [node.tokens for node in found[1]]
    assert structure(trees[0]) == structure(trees[1])
    assert trees[0].budget == trees[1].budget


@pytest.mark.parametrize("k", [1, 2])
def test_a_model_goes_on_from_several_steps_as_if_it_had_not_stopped(k: int) -> None:
    """At temperature 0, where draws have no numbers of their own; what was computed before is there."""
    greedy = Sampling(temperature=0, max_step_tokens=8, max_steps=6, boundary=SHORT.boundary)
    policy = make_policy(sampling=greedy)
    for number in range(4):
        at_once, in_parts = make_tree(number), make_tree(number)
        expected = extend(policy, [at_once.root], 2, steps=2 * k)
        nodes = extend(policy, [in_parts.root], 2, steps=k)
        assert all(node.depth == k or not node.open for node in nodes)
        if nodes[0].open:
            nodes = extend(policy, nodes[:1], 2, steps=k)
        assert [node.tokens for node in nodes] == [node.tokens for node in expected]
        # a branch that goes on has the keys of its first draw, and a new call those of the node
        assert [each[:5] for each in structure(in_parts)] == [each[:5] for each in structure(at_once)]
        assert in_parts.budget == at_once.budget
        assert_exact(reference(policy), [at_once, in_parts])
    assert policy.statistics.recomputed == 0


def test_each_account_pays_for_what_is_read_and_written_for_it() -> None:
    prover = Account("prover")
    for policy, tree in ((random_policy(), new_tree(DEEP_PROBLEM)), (make_policy(), make_tree())):
        [node] = extend(policy, [tree.root])
        own = len(node.step.tokens)
        assert tree.budget.accounts.keys() == {policy.account.name}
        for reads in (True, False):
            before = tree.budget.read("prover")
            extend(policy, [node], 2, account=prover)
            assert tree.budget.read("prover") - before == (len(node.tokens) if reads else 0)
        assert tree.budget.written("policy") == own
        assert tree.budget.written("prover") == sum(len(leaf.step.tokens) * leaf.multiplicity for leaf in node.children)
        assert tree.budget.accounts["prover"].parameters == policy.account.parameters


def test_what_makes_no_sense_is_refused() -> None:
    policy, tree = random_policy(), new_tree()
    for n, steps, message in (
        (-1, 1, "n must be at least 0, got -1"),
        ([1, 1], 1, "2 numbers of draws for 1 nodes"),
        ([-1], 1, r"n must be at least 0, got \[-1\]"),
        (1, 0, "steps must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            extend(policy, [tree.root], n, steps=steps)
    assert extend(policy, [tree.root], 0) == []
    assert tree.budget.total == 0
