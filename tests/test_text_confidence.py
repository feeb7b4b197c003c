"""Steps that end where the policy was unsure: on its own tokens, in every policy that tells their probabilities."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fake_vllm
from failing_server import serving
from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.policies.server import ServerPolicy
from gradatim.policies.transformers import TransformersPolicy
from gradatim.policies.vllm import VllmPolicy
from gradatim.text.boundaries.base import Boundary
from gradatim.text.boundaries.confidence import Confidence, probability_quantile
from gradatim.text.boundaries.merged import Merged
from gradatim.text.boundaries.tokens import Tokens
from gradatim.tree import EndReason, Node, Problem, Tree
from scripted_countdown import new_tree, random_policy
from test_policies_exact import assert_exact, make_tree, reference
from tiny_models import BOUNDARY, END, tiny_causal, word_tokenizer

LONG = {"max_step_tokens": 40, "max_steps": 40}


@dataclass
class Valued:
    """A step of which each character is a token of a probability."""

    text: str
    values: Sequence[float]

    @property
    def log_probabilities(self) -> list[float]:
        return [math.log(value) for value in self.values]

    def at_character(self, count: int) -> int:
        return count

    def at_token(self, count: int) -> int | None:
        return count if count <= len(self.text) else None

    def behind(self, place: int) -> Valued:
        return Valued(self.text[place:], self.values[place:])


def divided(boundary: Boundary, text: str, values: Sequence[float]) -> list[str]:
    """The steps of a text, asked for after each of its tokens."""
    steps, start = [], 0
    for seen in range(1, len(text) + 1):
        while end := boundary.end(Valued(text[start:seen], values[start:seen])) or 0:
            steps.append(text[start : start + end])
            start += end
    return [*steps, text[start:]]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, ["abc", "def", "g", "hij"]),
        ({"at": "after"}, ["abcd", "efg", "h", "ij"]),
        ({"min_tokens": 4}, ["abcdef", "ghij"]),
        ({"at": "after", "min_tokens": 4}, ["abcd", "efgh", "ij"]),
        ({"max_tokens": 2}, ["ab", "c", "de", "f", "g", "hi", "j"]),
        ({"at": "after", "max_tokens": 2}, ["ab", "cd", "ef", "g", "h", "ij", ""]),
        ({"below": 0.05}, ["abcdefghij"]),
    ],
)
def test_a_step_ends_where_a_token_is_unlikely(options: dict[str, Any], steps: list[str]) -> None:
    values = [0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.2, 0.2, 0.9, 0.3]  # d, g and h are below 0.3, j is not
    assert divided(Confidence(**{"below": 0.3} | options), "abcdefghij", values) == steps


def test_no_step_is_blank() -> None:
    assert divided(Confidence(below=0.5), " \nab", [0.1] * 4) == [" \na", "b"]
    assert divided(Confidence(below=0.5, at="after", max_tokens=1), " \nab", [0.1] * 4) == [" \na", "b", ""]


@given(
    values=st.lists(st.sampled_from([0.01, 0.2, 0.5, 0.99]), min_size=1, max_size=30),
    at=st.sampled_from(["before", "after"]),
    least=st.integers(1, 4),
    more=st.none() | st.integers(0, 6),
    count=st.integers(1, 3),
)
def test_what_is_said_once_stays_true_and_merging_takes_every_so_manieth_end(
    values: list[float], at: Any, least: int, more: int | None, count: int
) -> None:
    boundary = Confidence(below=0.3, at=at, min_tokens=least, max_tokens=None if more is None else least + more)
    text = ("abcdefghij" * 3)[: len(values)]
    said = [boundary.end(Valued(text[:seen], values[:seen])) for seen in range(1, len(values) + 1)]
    assert len({each for each in said if each is not None}) <= 1
    *whole, last = divided(boundary, text, values)
    assert "".join([*whole, last]) == text
    assert all(least <= len(step) <= (boundary.max_tokens or 30) for step in whole)
    groups = ["".join(whole[start : start + count]) for start in range(0, len(whole) // count * count, count)]
    rest = text[len("".join(groups)) :]
    assert divided(Merged(inner=boundary, count=count), text, values) == [*groups, rest]


def test_what_makes_no_sense_is_told() -> None:
    for options, said in (({"below": 0}, "below"), ({"below": 0.5, "min_tokens": 3, "max_tokens": 2}, "min_tokens=3")):
        with pytest.raises(GradatimError, match=said):
            Confidence(**options)
    with pytest.raises(GradatimError, match="'confidence' ends steps by the log-probabilities"):
        Confidence(below=0.5).split("a b c")


# Policies


def engine(boundary: Boundary) -> TransformersPolicy:
    return TransformersPolicy(tiny_causal(), word_tokenizer(), sampling=Sampling(**LONG, boundary=boundary))


def written(policy: Any, trees: list[Tree], work: Any) -> list[Node]:
    async def main() -> list[Node]:
        found = await work(policy, trees)
        await policy.close()
        return list(found)

    return asyncio.run(main())


async def at_once(policy: Any, trees: list[Tree]) -> list[Node]:
    return list(await policy.extend([tree.root for tree in trees], 3, steps=None))


async def step_by_step(policy: Any, trees: list[Tree]) -> list[Node]:
    nodes = [tree.root for tree in trees]
    ends: list[Node] = []
    while nodes:
        children = await policy.extend(nodes, 2 if nodes[0].is_root else 1)
        ends += [child for child in children if not child.open]
        nodes = [child for child in children if child.open]
    return ends


def assert_divided(leaf: Node, below: float, at: str) -> None:
    """The steps of a path end at tokens that are unlikely, wherever something is written, and at no other ones."""
    steps = [node.step for node in leaf.path()[1:]]
    tokens = [token for step in steps for token in step.tokens]
    values = [math.exp(value) for step in steps for value in step.log_probabilities]
    expected, start = [], 0
    for place, value in enumerate(values):
        end = place if at == "before" else place + 1
        if value < below and tokens[place] != END and max(tokens[start:end], default=0) > BOUNDARY:
            expected.append(end)
            start = end
    found = list(accumulate(len(step.tokens) for step in steps))
    assert [end for end in expected if end < len(tokens)] == found[:-1]


@pytest.mark.parametrize("work", [at_once, step_by_step])
@pytest.mark.parametrize("at", ["before", "after"])
def test_the_engine_ends_steps_at_its_own_unlikely_tokens(at: Any, work: Any) -> None:
    policy, trees = engine(Confidence(below=0.02, at=at)), [make_tree(number) for number in range(4)]
    leaves = written(policy, trees, work)
    assert sum(len(leaf.path()) - 1 for leaf in leaves) > 3 * len(leaves)
    assert_exact(reference(policy), trees)
    if work is at_once:
        for leaf in leaves:
            assert_divided(leaf, 0.02, at)
        others = written(engine(Tokens(count=5)), [make_tree(number) for number in range(4)], work)
        assert [leaf.tokens for leaf in leaves] == [leaf.tokens for leaf in others]  # whatever their steps are


def test_vllm_ends_steps_where_the_engine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm)
    sampling = Sampling(temperature=0.0, **LONG, boundary=Confidence(below=0.2))
    model, tokenizer = tiny_causal(), word_tokenizer()
    vllm = VllmPolicy(fake_vllm.LLM(tiny_causal(), tokenizer), tokenizer, sampling=sampling)
    paths = []
    for policy in (vllm, TransformersPolicy(model, tokenizer, sampling=sampling)):
        (leaf, *_) = written(policy, [make_tree(1)], at_once)
        paths.append([node.step.tokens for node in leaf.path()])
    assert paths[0] == paths[1]
    assert len(paths[0]) > 3


@pytest.mark.parametrize("tokens_a_chunk", [1, 2])
def test_a_server_that_tells_log_probabilities_ends_steps(tokens_a_chunk: int) -> None:
    words = ["One", " two", " three", " four", " five", " six"]
    with serving(lambda text, seed: words) as server:
        server.tokens_a_chunk = tokens_a_chunk
        server.log_probability = lambda place: -3.0 if place in (2, 3, 5) else -0.1
        policy = ServerPolicy(server.url, sampling=Sampling(**LONG, boundary=Confidence(below=0.1)))
        leaf, *_ = written(policy, [Tree(Problem("p", "Count.\n"))], at_once)
    steps = [node.step for node in leaf.path()[1:]]
    assert [step.text for step in steps] == ["One two", " three", " four five", " six"]
    assert [list(map(round, step.log_probabilities)) for step in steps[:3]] == [[0, 0], [-3], [-3, 0]]


def test_a_server_that_tells_none_is_refused() -> None:
    with serving(lambda text, seed: ["One", " two"]) as server:
        server.shows = frozenset({"usage", "stream", "stop"})
        policy = ServerPolicy(server.url, sampling=Sampling(**LONG, boundary=Confidence(below=0.1)))
        with pytest.raises(GradatimError, match="'confidence' ends steps by the log-probabilities"):
            written(policy, [Tree(Problem("p", "Count.\n"))], at_once)


@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize("work", [at_once, step_by_step])
def test_a_budget_may_end_anywhere(at: Any, work: Any) -> None:
    policy = engine(Confidence(below=0.05, at=at, max_tokens=6))
    for limit in range(0, 60, 7):
        tree = make_tree(3)
        tree.budget.limit = limit
        written(policy, [tree], work)
        assert tree.budget.total <= limit
        kept = sum(node.multiplicity * len(node.step.tokens) for node in tree.nodes[1:])
        assert tree.budget.written("policy") == kept
    assert kept > 20


# The threshold


def test_the_threshold_is_what_a_share_of_all_tokens_falls_below() -> None:
    trees = [new_tree(seed=seed) for seed in range(3)]
    asyncio.run(at_once(random_policy(), trees))
    values = sorted(
        math.exp(value)
        for tree in trees
        for node in tree.nodes
        for _ in range(node.multiplicity)
        for value in node.step.log_probabilities
    )
    for quantile in (0.0, 0.02, 0.5, 1.0):
        assert probability_quantile(trees, quantile) == pytest.approx(np.quantile(values, quantile))
    boundary = Confidence(below=probability_quantile(trees, 0.02))
    assert sum(value < boundary.below for value in values) <= 0.02 * len(values)


@pytest.mark.parametrize(("quantile", "said"), [(1.5, "a quantile lies from 0 to 1"), (0.5, "has log-probabilities")])
def test_a_threshold_that_cannot_be_found_is_told(quantile: float, said: str) -> None:
    with pytest.raises(GradatimError, match=said):
        probability_quantile([new_tree()], quantile)


def test_a_step_that_never_ends_is_cut_off() -> None:
    policy = engine(Confidence(below=1e-9))
    leaves = written(policy, [make_tree()], step_by_step)
    assert {leaf.step.end for leaf in leaves} <= {EndReason.LENGTH, EndReason.END_OF_TEXT}
