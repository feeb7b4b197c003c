"""A head on the policy costs no pass of its own, and says what reading each path alone says."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
import torch

from gradatim.engine.head_shape import HeadShape
from gradatim.engine.heads import attach_heads, heads_of
from gradatim.engine.reader import Reader
from gradatim.errors import GradatimError
from gradatim.policies.transformers import TransformersPolicy
from gradatim.scorers.value_head import ValueHeadScorer
from gradatim.search.beam import Beam
from gradatim.tree import Node, Tree
from test_policies_exact import make_policy, make_tree
from test_scorers_process_reward import random_tree
from tiny_models import tiny_causal

SHAPES = {"value": HeadShape(), "verifier": HeadShape(hidden=5)}


def with_heads(model: Any) -> Any:
    attach_heads(model, SHAPES)
    torch.manual_seed(5)
    for head in heads_of(model).values():
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def said(model: Any, head: str, node: Node) -> float:
    output = model(input_ids=torch.tensor([node.tokens_before_observation]), output_hidden_states=True)
    return float(heads_of(model)[head](output.hidden_states[-1][0, -1]))


def headed_policy() -> TransformersPolicy:
    policy = make_policy()
    with_heads(policy.model)
    return policy


def search(policy: TransformersPolicy, seed: int = 0) -> Tree:
    """A beam search that the policy's own head guides."""
    tree = make_tree(2, seed)
    scorer = ValueHeadScorer(policy.reader(), "value_head")
    asyncio.run(Beam(width=2, branch=4)(tree, policy, scorer))
    return tree


def test_one_forward_pass_serves_the_policy_and_its_head() -> None:
    """Writing a draw computes all of its tokens but the last; scoring a step computes that one, once, and going on
    from the step computes it no more. What the policy wrote costs nothing to score."""
    policy = headed_policy()
    tree = search(policy)
    steps, scored = tree.nodes[1:], [node for node in tree.nodes[1:] if "value_head" in node.scores]
    assert len(scored) > 8
    assert any(node.children for node in scored)
    assert all(node.step.end.cuts_off for node in steps if node not in scored)
    prompt = len(tree.root.step.tokens)
    written = sum(node.multiplicity * len(node.step.tokens) for node in steps)
    draws = sum(node.multiplicity for node in steps)
    assert policy.tree_model.statistics.tokens == prompt + written - draws + len(scored)
    assert tree.budget.accounts.keys() == {"policy"}
    assert tree.budget.total == prompt + written
    model = with_heads(tiny_causal())
    for node in scored:
        assert node.scores["value_head"] == pytest.approx(1 / (1 + math.exp(-said(model, "value", node))), abs=1e-5)


@pytest.mark.parametrize("head", ["value", "verifier"])
def test_raw_scores_and_their_sums_are_those_of_each_path_alone(head: str) -> None:
    model, tree = with_heads(tiny_causal()), random_tree(3)
    reader = Reader(with_heads(tiny_causal()))
    for name, options in {"raw": {}, "sum": {"accumulate": True}}.items():
        asyncio.run(ValueHeadScorer(reader, name, head, output="raw", **options).score(tree.nodes[::-1]))
    for node in tree.nodes[1:]:
        assert node.scores["raw"] == pytest.approx(said(model, head, node), abs=1e-5)
        assert node.scores["sum"] == pytest.approx(sum(step.scores["raw"] for step in node.path()[1:]), abs=1e-5)
    assert reader.statistics.recomputed == 0


def test_where_the_budget_cannot_pay_nothing_is_said() -> None:
    tree = random_tree(3, limit=30)
    scorer = ValueHeadScorer(Reader(with_heads(tiny_causal())), "sum", output="raw", accumulate=True)
    asyncio.run(scorer.score(tree.nodes[1:]))
    unscored = [node for node in tree.nodes[1:] if "sum" not in node.scores]
    assert 0 < len(unscored) == scorer.missing < len(tree) - 1


def test_a_head_that_is_not_there_is_an_error() -> None:
    with pytest.raises(GradatimError, match="the model has no head 'contribution'"):
        ValueHeadScorer(Reader(with_heads(tiny_causal())), "x", "contribution")
    scorer = ValueHeadScorer(Reader(with_heads(tiny_causal())), "x", "next_token")
    with pytest.raises(GradatimError, match="'next_token' says several things of a step"):
        asyncio.run(scorer.score(random_tree(3).nodes[1:]))
