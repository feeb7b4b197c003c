"""Tokens are drawn from the right distribution, with random numbers that depend on the place in the tree only."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.engine.token_sampling import choose_tokens, uniforms
from gradatim.policies.base import Sampling
from gradatim.tree import Tree
from test_policies_exact import grow, make_policy, make_tree, structure, work
from tiny_models import tiny_causal


def naive_choice(logits: list[float], sampling: Sampling, uniform: float) -> tuple[int, float]:
    """One token by the definitions of temperature, top-k and top-p, and the smallest margin of the draw: how near the
    random number or a truncation came to choosing otherwise."""
    highest = max(logits)
    total = sum(math.exp(value - highest) for value in logits)
    if sampling.temperature == 0:
        return logits.index(highest), 1.0
    weights = {token: math.exp((value - highest) / sampling.temperature) for token, value in enumerate(logits)}
    order = sorted(weights, key=lambda token: -weights[token])
    if sampling.top_k:
        order = order[: sampling.top_k]
    mass = sum(weights[token] for token in order)
    kept, reached, margin = [], 0.0, 1.0
    for token in order:
        if sampling.top_p < 1:
            margin = min(margin, abs(reached - sampling.top_p))
            if reached >= sampling.top_p:
                break
        kept.append(token)
        reached += weights[token] / mass
    mass = sum(weights[token] for token in kept)
    assert total > 0
    cumulative = 0.0
    for token in sorted(kept):
        cumulative += weights[token] / mass
        margin = min(margin, abs(cumulative - uniform))
        if uniform < cumulative:
            return token, margin
    return max(kept), margin


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 200),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 50, 500]),
)
def test_choice_equals_the_naive_one(seed: int, size: int, temperature: float, top_p: float, top_k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((6, size), generator=generator) * 3
    uniform = uniforms(np.arange(seed, seed + 6, dtype=np.uint64), np.zeros(6, dtype=np.int64))
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k)
    tokens, log_probabilities = choose_tokens(logits, sampling, uniform)
    expected = logits.double().log_softmax(-1)
    for row in range(6):
        token, margin = naive_choice(logits[row].double().tolist(), sampling, float(uniform[row]))
        if margin > 1e-6:
            assert tokens[row] == token
        assert abs(log_probabilities[row] - expected[row, tokens[row]]) < 1e-5


def test_tokens_of_no_probability_are_never_drawn() -> None:
    logits = torch.full((4, 130), float("-inf"))
    logits[:, [3, 64, 128]] = torch.tensor([0.0, 1.0, -30.0])
    uniform = np.array([0.0, 0.2, 0.5, 1 - 2.0**-53])
    tokens, _ = choose_tokens(logits, Sampling(), uniform)
    assert set(tokens.tolist()) <= {3, 64, 128}


def test_uniforms_are_uniform_and_independent() -> None:
    keys, positions = np.meshgrid(np.arange(300, dtype=np.uint64), np.arange(300))
    numbers = uniforms(keys.ravel(), positions.ravel()).reshape(300, 300)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    cells = np.histogram(numbers, bins=100, range=(0, 1))[0]
    assert ((cells - 900) ** 2 / 900).sum() < 160  # chi-square, 99 degrees of freedom: p = 1e-4
    for along in (0, 1):
        neighbours = np.corrcoef(numbers.take(range(299), along).ravel(), numbers.take(range(1, 300), along).ravel())
        assert abs(neighbours[0, 1]) < 0.015


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_first_tokens_follow_the_models_distribution(temperature: float) -> None:
    policy = make_policy(sampling=Sampling(temperature=temperature, max_step_tokens=1))
    tree = make_tree()
    draws = 4000
    asyncio.run(policy.extend([tree.root], draws))
    with torch.inference_mode():
        logits = tiny_causal()(input_ids=torch.tensor([tree.root.tokens])).logits[0, -1].double()
    expected = (logits / temperature).softmax(-1) * draws
    drawn = Counter({node.step.tokens[0]: node.multiplicity for node in tree.root.children})
    assert drawn.total() == draws
    common = [token for token in range(len(expected)) if expected[token] >= 5]
    statistic = sum((drawn[token] - float(expected[token])) ** 2 / float(expected[token]) for token in common)
    freedom = len(common) - 1
    assert freedom > 5
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)


def test_trees_do_not_depend_on_what_else_runs_nor_on_the_size_of_the_batch() -> None:
    expected = asyncio.run(grow(make_policy(), 4))
    for options in ({"max_branches": 1}, {"max_branches": 3}, {"max_branches": 7, "memory_bytes": 30_000}):
        assert list(map(structure, asyncio.run(grow(make_policy(**options), 4)))) == list(map(structure, expected))
    alone = make_policy()

    async def one_after_another() -> list[Tree]:
        trees = [make_tree(number) for number in range(4)]
        for seed, tree in reversed(list(enumerate(trees))):
            await work(alone, tree, seed)
        return trees

    assert list(map(structure, asyncio.run(one_after_another()))) == list(map(structure, expected))


def test_another_seed_gives_another_tree() -> None:
    policy = make_policy()
    trees = [make_tree(1, seed=0), make_tree(1, seed=0), make_tree(1, seed=1)]
    for tree in trees:
        asyncio.run(policy.extend([tree.root], 5))
    assert structure(trees[0]) == structure(trees[1])
    assert structure(trees[0])[1:] != structure(trees[2])[1:]


def test_several_ways_of_sampling_run_side_by_side() -> None:
    policy = make_policy()
    trees = [make_tree(2), make_tree(2), make_tree(2)]
    ways = [Sampling(temperature=0, max_step_tokens=4), Sampling(top_k=2, max_step_tokens=7), None]

    async def together() -> None:
        await asyncio.gather(*(policy.extend([t.root], 4, sampling=way) for t, way in zip(trees, ways, strict=True)))

    asyncio.run(together())
    for tree, way in zip(trees, ways, strict=True):
        alone = make_tree(2)
        asyncio.run(make_policy().extend([alone.root], 4, sampling=way))
        assert structure(tree) == structure(alone)
    assert len(trees[0].root.children) == 1
    assert trees[0].root.children[0].multiplicity == 4
