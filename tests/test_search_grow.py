"""Grown trees and backed-up values against exact probabilities."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.search import Grow
from gradatim.tasks.base import grade
from gradatim.tree import EndReason, Step, Tree
from gradatim.values.backup import back_up_values
from scripted_countdown import (
    TASK,
    FunctionScorer,
    ListingPolicy,
    arbitrary_scorer,
    exact_values,
    new_tree,
    problems,
    random_moves,
    random_policy,
)


def test_values_of_a_wholly_listed_tree_are_exact() -> None:
    distribution = random_moves()
    for problem in problems(4):
        tree = new_tree(problem)
        asyncio.run(Grow(branching=(1000, 1000), rollouts=0)(tree, ListingPolicy(distribution)))
        grade(tree, TASK)
        back_up_values(tree)
        truth = exact_values(problem, distribution)
        assert len(tree) == len(truth)
        assert {node.text: node.scores["value"] for node in tree.nodes} == pytest.approx(truth)


def test_values_of_sampled_trees_are_unbiased() -> None:
    problem = problems(1)[0]
    truth = exact_values(problem, random_moves())[""]
    estimates = []
    for seed in range(400):
        tree = new_tree(problem, seed=seed)
        asyncio.run(Grow(branching=(6, 3), rollouts=0)(tree, random_policy()))
        grade(tree, TASK)
        back_up_values(tree)
        estimates.append(tree.root.scores["value"])
    assert 0.02 < truth < 0.98
    assert sum(estimates) / len(estimates) == pytest.approx(truth, abs=0.012)


def test_a_step_drawn_often_weighs_more_than_one_expanded_often() -> None:
    tree = new_tree()
    often = tree.add(tree.root, Step((1,), "a\n"))
    tree.add(tree.root, Step((1,), "a\n"))
    tree.add(tree.root, Step((1,), "a\n"))
    rare = tree.add(tree.root, Step((2,), "b\n"))
    right = tree.add(often, Step((3,), "r", end=EndReason.END_OF_TEXT))
    right.reward = 1.0
    for token in (3, 4, 5):
        tree.add(rare, Step((token,), "w", end=EndReason.END_OF_TEXT)).reward = 0.0
    back_up_values(tree)
    assert tree.root.scores["value"] == 0.75
    assert tree.root.counts["value"] == 4


def test_open_and_budget_cut_leaves_say_nothing_and_long_ones_are_wrong() -> None:
    tree = new_tree()
    for token, end in enumerate((EndReason.BOUNDARY, EndReason.BUDGET, EndReason.LENGTH, EndReason.END_OF_TEXT)):
        tree.add(tree.root, Step((token,), "x", end=end))
    tree.nodes[4].reward = 1.0
    tree.nodes[1].scores["value"] = 0.5  # from an earlier backup, when there was something below
    back_up_values(tree)
    assert [node.scores.get("value") for node in tree.nodes] == [0.5, None, None, 0.0, 1.0]
    tree.nodes[4].reward = None
    with pytest.raises(GradatimError, match="grade the tree"):
        back_up_values(tree)


def test_every_open_node_is_drawn_below_as_often_as_its_depth_says() -> None:
    tree = new_tree()
    asyncio.run(Grow(branching=(5, 3), rollouts=0)(tree, random_policy()))
    assert {(node.depth, node.draws) for node in tree.nodes if node.open} == {(0, 5), (1, 3)}


def test_rollouts_complete_what_the_last_level_left_open() -> None:
    tree = new_tree()
    asyncio.run(Grow(branching=(4,), rollouts=3)(tree, random_policy()))
    assert all(node.draws == 3 and node.children for node in tree.nodes if node.depth == 1)
    assert all(leaf.finished for leaf in tree.leaves())


def test_decided_steps_are_not_expanded_on_demand() -> None:
    tree = new_tree()
    scorer = FunctionScorer(lambda node: (node.id % 3) / 2, "thirds")
    asyncio.run(Grow(branching=(100, 100), rollouts=0, skip_decided=True)(tree, ListingPolicy(random_moves()), scorer))
    assert {node.scores["thirds"] for node in tree.root.children} == {0.0, 0.5, 1.0}
    for node in tree.root.children:
        assert bool(node.children) == (node.scores["thirds"] == 0.5)
    with pytest.raises(GradatimError, match="growing needs a scorer to guide it"):
        asyncio.run(Grow(skip_decided=True)(new_tree(), random_policy()))


def test_wrong_shapes_are_refused() -> None:
    for options in ({"branching": (2, 0)}, {"branching": ()}, {"rollouts": -1}):
        with pytest.raises(GradatimError, match=f"^Grow: {next(iter(options))}"):
            Grow(**options)  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(limit=st.integers(0, 2000), seed=st.integers(0, 5))
def test_growth_ends_with_the_budget(limit: int, seed: int) -> None:
    tree: Tree = new_tree(seed=seed, limit=limit)
    asyncio.run(Grow(branching=(6, 3), rollouts=2)(tree, random_policy(0.2), arbitrary_scorer()))
    assert tree.budget.total <= limit
    grade(tree, TASK)
    back_up_values(tree)
    assert all(0 <= node.scores["value"] <= 1 for node in tree.nodes if "value" in node.scores)
