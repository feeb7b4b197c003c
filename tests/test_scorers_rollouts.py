"""Monte-Carlo step values: exact where the policy is, reused where the tree knows, silent where the budget ended."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.policies.base import Sampling
from gradatim.scorers.base import Scorer
from gradatim.scorers.rollouts import RolloutScorer
from gradatim.search import Beam, Grow
from gradatim.tree import EndReason, Node, Step
from scripted_countdown import TASK, DelayedPolicy, exact_values, new_tree, problems, random_moves, random_policy


def below(node: Node) -> Counter[Node]:
    return Counter({leaf: leaf.multiplicity for leaf in node.leaves() if leaf.finished})


def test_it_is_a_scorer() -> None:
    assert isinstance(RolloutScorer(random_policy(), TASK), Scorer)


def test_a_value_is_the_share_of_rollouts_that_verify() -> None:
    for problem in problems(5):
        tree = new_tree(problem)
        scorer = RolloutScorer(random_policy(), TASK, rollouts=40, name="value")
        asyncio.run(scorer.score([tree.root]))
        right = sum(count for leaf, count in below(tree.root).items() if TASK.reachable(problem, leaf.text))
        assert tree.root.scores == {"value": right / 40}
        assert tree.root.counts == {"value": 40}
        assert all(leaf.reward is not None for leaf in tree.leaves())


def test_values_approach_the_exact_probability() -> None:
    problem = problems(1)[0]
    tree = new_tree(problem)
    asyncio.run(RolloutScorer(random_policy(), TASK, rollouts=4000).score([tree.root]))
    assert tree.root.scores["rollouts"] == pytest.approx(exact_values(problem, random_moves())[""], abs=0.02)


def test_solutions_in_the_tree_count_as_rollouts() -> None:
    tree = new_tree()
    policy = random_policy()
    asyncio.run(policy.extend([tree.root], 6, steps=None))
    asyncio.run(RolloutScorer(policy, TASK, rollouts=8).score([tree.root]))
    assert tree.root.draws == 8
    assert tree.root.counts["rollouts"] == 8
    spent = tree.budget.total
    asyncio.run(RolloutScorer(policy, TASK, rollouts=5, name="fewer").score([tree.root]))
    assert tree.budget.total == spent
    assert tree.root.counts["fewer"] == 8


def test_each_node_is_brought_to_the_same_number_of_rollouts() -> None:
    tree = new_tree()
    policy = random_policy()
    scorer = RolloutScorer(policy, TASK, rollouts=8)
    asyncio.run(scorer.score([tree.root]))
    children = list(tree.root.children)
    asyncio.run(scorer.score([*children, *children]))
    for child in children:
        assert child.counts["rollouts"] == 8
        assert sum(below(child).values()) == 8
        assert child.draws == 8


def test_a_node_and_its_ancestor_in_one_call_get_their_own_rollouts() -> None:
    tree = new_tree()
    policy = random_policy()
    (child,) = asyncio.run(policy.extend([tree.root]))
    asyncio.run(RolloutScorer(policy, TASK, rollouts=4).score([tree.root, child]))
    assert tree.root.counts["rollouts"] == child.counts["rollouts"] == 4
    assert sum(below(tree.root).values()) == 8


def test_closed_steps_have_their_own_reward() -> None:
    tree = new_tree()
    asyncio.run(random_policy().extend([tree.root], 5, steps=None))
    long = tree.add(tree.root, Step((1,), "x", end=EndReason.LENGTH))
    fragment = tree.add(tree.root, Step((2,), "y", end=EndReason.BUDGET))
    leaf = tree.solutions()[0]
    spent = tree.budget.total
    asyncio.run(RolloutScorer(random_policy(), TASK).score([leaf, long, fragment]))
    assert leaf.scores["rollouts"] == float(TASK.reachable(tree.problem, leaf.text))
    assert long.scores["rollouts"] == 0.0
    assert fragment.scores == {}
    assert tree.budget.total == spent


def test_rollouts_that_are_cut_off_are_worth_nothing() -> None:
    tree = new_tree()
    asyncio.run(RolloutScorer(random_policy(), TASK, rollouts=3, sampling=Sampling(max_steps=1)).score([tree.root]))
    assert (tree.root.scores["rollouts"], tree.root.counts["rollouts"]) == (0.0, 3)


def test_a_score_is_not_written_twice() -> None:
    tree = new_tree()
    tree.root.scores["rollouts"] = 0.125
    asyncio.run(RolloutScorer(random_policy(), TASK).score([tree.root]))
    assert tree.root.scores["rollouts"] == 0.125
    assert len(tree) == 1


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(0, 1500), rollouts=st.integers(1, 6))
def test_the_budget_ends_rollouts_and_cut_ones_say_nothing(limit: int, rollouts: int) -> None:
    tree = new_tree(limit=limit)
    policy = random_policy()
    asyncio.run(Grow(branching=(3, 2))(tree, policy, RolloutScorer(policy, TASK, rollouts=rollouts)))
    assert tree.budget.total <= limit
    for node in tree.nodes:
        assert node.counts.keys() == node.scores.keys()
        if node.open and "rollouts" in node.scores:
            assert node.counts["rollouts"] >= 1
            assert node.counts["rollouts"] >= rollouts or tree.budget.spent


@given(limit=st.integers(0, 400), seed=st.integers(0, 3))
def test_a_score_is_the_mean_over_the_solutions_that_the_budget_left_whole(limit: int, seed: int) -> None:
    tree = new_tree(seed=seed, limit=limit)
    asyncio.run(RolloutScorer(random_policy(), TASK, rollouts=10).score([tree.root]))
    whole = below(tree.root)
    right = sum(count for leaf, count in whole.items() if TASK.reachable(tree.problem, leaf.text))
    if whole:
        assert tree.root.counts == {"rollouts": whole.total()}
        assert tree.root.scores == {"rollouts": right / whole.total()}
    else:
        assert tree.root.scores == tree.root.counts == {}


def test_values_do_not_depend_on_timing() -> None:
    results = []
    for seed in (0, 1):
        tree = new_tree()
        policy = DelayedPolicy(random_moves(), seed)
        asyncio.run(Beam(width=3, branch=2)(tree, policy, RolloutScorer(policy, TASK, rollouts=5)))
        results.append(tree.to_json())
    assert results[0] == results[1]


def test_a_value_needs_rollouts() -> None:
    with pytest.raises(ValueError, match="at least one"):
        RolloutScorer(random_policy(), TASK, rollouts=0)
