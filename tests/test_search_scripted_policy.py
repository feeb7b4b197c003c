"""The scripted policy keeps what every policy promises: seeds, log-probabilities, merging, budgets."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.policies.base import Policy, Sampling
from gradatim.policies.scripted import END_TOKEN, ScriptedPolicy, ScriptedStep
from gradatim.tasks.base import grade
from gradatim.tree import EndReason, Node, Step
from scripted_countdown import PROBLEM, TASK, new_tree, random_moves, random_policy


def three_steps(node: Node) -> list[ScriptedStep]:
    return [
        ScriptedStep("ab\n", 0.5),
        ScriptedStep("ac\n", 0.3),
        ScriptedStep("b", 0.2, EndReason.END_OF_TEXT),
    ]


def test_it_is_a_policy() -> None:
    assert isinstance(random_policy(), Policy)


def test_log_probabilities_follow_the_chain_rule() -> None:
    tree = new_tree()
    children = list(dict.fromkeys(asyncio.run(ScriptedPolicy(three_steps).extend([tree.root], 50))))
    by_text = {child.step.text: child.step for child in children}
    assert by_text["ab\n"].log_probabilities == pytest.approx((math.log(0.8), math.log(0.5 / 0.8), 0.0))
    assert by_text["ac\n"].log_probabilities == pytest.approx((math.log(0.8), math.log(0.3 / 0.8), 0.0))
    assert by_text["b"].log_probabilities == pytest.approx((math.log(0.2), 0.0))
    assert by_text["b"].tokens == (ord("b"), END_TOKEN)
    assert sum(child.multiplicity for child in children) == 50


def test_draws_follow_the_distribution() -> None:
    tree = new_tree()
    children = list(dict.fromkeys(asyncio.run(ScriptedPolicy(three_steps).extend([tree.root], 4000))))
    shares = {child.step.text: child.multiplicity / 4000 for child in children}
    assert shares == pytest.approx({"ab\n": 0.5, "ac\n": 0.3, "b": 0.2}, abs=0.03)


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        (Sampling(temperature=0), {"ab\n"}),
        (Sampling(top_k=2), {"ab\n", "ac\n"}),
        (Sampling(top_p=0.5), {"ab\n"}),
        (Sampling(top_p=0.51), {"ab\n", "ac\n"}),
        (Sampling(temperature=0.01), {"ab\n"}),
        (Sampling(temperature=100), {"ab\n", "ac\n", "b"}),
    ],
)
def test_temperature_and_truncation_apply_to_whole_steps(sampling: Sampling, possible: set[str]) -> None:
    children = list(dict.fromkeys(asyncio.run(ScriptedPolicy(three_steps, sampling).extend([new_tree().root], 100))))
    assert {child.step.text for child in children} == possible


def test_what_is_drawn_depends_on_the_seed_and_earlier_draws_only() -> None:
    async def grown(seed: int, calls: list[int]) -> Counter[str]:
        tree = new_tree(seed=seed)
        for count in calls:
            await random_policy().extend([tree.root], count)
        return Counter({child.step.text: child.multiplicity for child in tree.root.children})

    assert asyncio.run(grown(1, [6])) == asyncio.run(grown(1, [2, 4]))
    assert asyncio.run(grown(1, [6])) != asyncio.run(grown(2, [6]))


def test_rollouts_run_to_the_end_and_their_steps_are_nodes() -> None:
    tree = new_tree()
    leaves = asyncio.run(random_policy().extend([tree.root], 20, steps=None))
    grade(tree, TASK)
    assert len(leaves) == 20
    assert all(leaf.finished and leaf.depth == 2 for leaf in leaves)
    assert len({node.key for node in tree.nodes}) == len(tree)
    assert Counter(leaves) == {leaf: leaf.multiplicity for leaf in tree.solutions()}
    assert all(leaf.reward == float(TASK.reachable(PROBLEM, leaf.text)) for leaf in leaves)


def test_long_steps_and_long_rollouts_are_cut_off() -> None:
    tree = new_tree()
    (child,) = asyncio.run(random_policy().extend([tree.root], sampling=Sampling(max_step_tokens=3)))
    assert (len(child.step.tokens), child.step.end) == (3, EndReason.LENGTH)
    tree = new_tree()
    (leaf,) = asyncio.run(random_policy().extend([tree.root], steps=None, sampling=Sampling(max_steps=1)))
    assert (leaf.depth, leaf.step.end) == (1, EndReason.STEPS)


def test_closed_nodes_are_passed_over() -> None:
    tree = new_tree()
    closed = tree.add(tree.root, Step((1,), "x", end=EndReason.LENGTH))
    assert asyncio.run(random_policy().extend([closed], 3)) == []
    assert asyncio.run(random_policy().extend([closed], 3, steps=None)) == []


@given(limit=st.integers(0, 200), rollouts=st.integers(1, 4))
def test_every_token_of_the_tree_is_charged_and_the_prompt_once(limit: int, rollouts: int) -> None:
    tree, policy = new_tree(limit=limit), random_policy(noise=0.3)
    for _ in range(2):
        leaves = asyncio.run(policy.extend([tree.root], rollouts, steps=None))
    budget = tree.budget
    assert budget.total <= limit
    prompt = len(PROBLEM.prompt)
    assert budget.read("policy") == (prompt if limit >= prompt else 0)
    written = sum(len(node.step.tokens) * node.multiplicity for node in tree.nodes[1:])
    assert budget.written("policy") == written
    if limit <= prompt:
        assert leaves == []
        assert len(tree) == 1
    cut = [node for node in tree.nodes if node.step.end is EndReason.BUDGET]
    assert not cut or budget.spent


def test_an_empty_distribution_is_an_error() -> None:
    with pytest.raises(ValueError, match="no step"):
        asyncio.run(ScriptedPolicy(lambda node: []).extend([new_tree().root]))


def test_noise_is_the_share_of_illegal_moves() -> None:
    steps = random_moves(noise=0.25)(new_tree().root)
    wrong = sum(step.probability for step in steps if not _legal(step.text))
    assert wrong == pytest.approx(0.25)
    assert sum(step.probability for step in steps) == pytest.approx(1.0)


def _legal(text: str) -> bool:
    return "wrong" not in TASK.check(PROBLEM, text).reason
