"""The attention that a reader tells of is that of reading each path alone, with transformers' own attention."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
import torch

from gradatim.engine.reader import SCORE, Reader
from gradatim.scorers.layouts import SeparatorLayout
from gradatim.tree import Node, Problem, Step, Tree
from model_families import model_of
from test_scorers_process_reward import random_tree, read_tokens
from tiny_models import byte_pair_tokenizer, tiny_causal, tiny_classifier

FAMILIES = ("llama", "llama_grouped", "qwen3", "gpt2", "gemma2", "gemma3", "mistral")


def expected(model: Any, tokens: list[int], ends: list[int]) -> list[float]:
    """How much the last token attends to each stretch of tokens, in the last layer of an untouched model."""
    with torch.no_grad():
        weights = model(input_ids=torch.tensor([tokens]), output_attentions=True, use_cache=False).attentions[-1]
    last = weights[0, :, -1].mean(dim=0)
    return [float(last[start:stop].sum()) for start, stop in pairwise((0, *ends))]


def ends_of(node: Node) -> list[int]:
    return [*(len(each.tokens) for each in node.path()[:-1]), len(node.tokens_before_observation)]


def assert_exact(model: Any, nodes: list[Node], readings: list[Any]) -> None:
    for node, reading in zip(nodes, readings, strict=True):
        found = expected(model, node.tokens_before_observation, ends_of(node))
        assert reading.attention == pytest.approx(found, abs=1e-5)
        assert len(reading.attention) == len(node.path())
        assert sum(reading.attention) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_equals_that_of_each_path_alone(family: str) -> None:
    reader, trees = Reader(tiny_causal(family), tokens_per_pass=90), [random_tree(seed) for seed in range(2)]
    nodes = [node for tree in trees for node in tree.nodes]
    model = tiny_causal(family)
    for asked in ({"keep": False}, {}, {"log_probabilities": True, "hidden": True}):
        assert_exact(model, nodes, asyncio.run(reader.read(nodes, attention=True, **asked)))
    assert [tree.budget.total for tree in trees] == [read_tokens(tree) for tree in trees]


@pytest.mark.parametrize("kind", ["gpt_oss", "olmo2", "phi3"])
def test_other_kinds_attend_as_they_do_alone(kind: str) -> None:
    """One with sinks, which take a share of the weight, among them."""
    made, alone = model_of(kind), model_of(kind)
    alone.set_attn_implementation("eager")
    tree = random_tree(5)
    for node, reading in zip(tree.nodes, asyncio.run(Reader(made).read(tree.nodes, attention=True)), strict=True):
        assert reading is not None
        found = expected(alone, node.tokens_before_observation, ends_of(node))
        assert reading.attention == pytest.approx(found, abs=1e-5)
        assert (sum(found) < 0.999) == (kind == "gpt_oss")


@pytest.mark.parametrize("memory_bytes", [0, 15_000])
def test_what_else_is_read_stays_exact(memory_bytes: int) -> None:
    """Reading attention leaves in the cache what it was, and a tiny cache changes nothing but the work."""
    reader, tree = Reader(tiny_classifier(labels=2), memory_bytes=memory_bytes), random_tree(3)
    model = tiny_classifier(labels=2)
    asked: dict[str, Any] = {"heads": (SCORE,), "hidden": True}
    before = asyncio.run(reader.read(tree.nodes, **asked))
    assert_exact(model, tree.nodes, asyncio.run(reader.read(tree.nodes, attention=True, heads=(SCORE,))))
    after = asyncio.run(reader.read(tree.nodes, **asked))
    for one, other in zip(before, after, strict=True):
        assert one is not None
        assert other is not None
        assert one.attention is None
        torch.testing.assert_close(one.heads[SCORE], other.heads[SCORE], atol=1e-5, rtol=0)
        torch.testing.assert_close(one.hidden, other.hidden, atol=1e-5, rtol=1e-4)


def test_a_cached_path_costs_a_token_for_each_step() -> None:
    reader, tree = Reader(tiny_causal()), random_tree(1)
    leaves = list(tree.leaves())
    asyncio.run(reader.read(leaves, hidden=True))
    before = reader.statistics.tokens
    asyncio.run(reader.read(leaves, attention=True))
    assert reader.statistics.tokens - before == len(leaves)
    assert tree.budget.total == read_tokens(tree)


def test_text_is_read_in_the_layout_of_the_model() -> None:
    texts = ["one two\n", "three\n", "four five six\n"]
    tokenizer = byte_pair_tokenizer(["count to six\n", *texts], size=290)
    layout = SeparatorLayout(tokenizer)
    tree = Tree(Problem("p", "count to six\n"))
    node = tree.root
    for text in texts:
        node = tree.add(node, Step((), text))
    made = [tiny_classifier(labels=2, vocabulary=len(tokenizer)) for _ in range(2)]
    reading = asyncio.run(Reader(made[0], path_tokens=layout.path_tokens).read([node], attention=True))[0]
    steps = [each.step for each in node.path()[1:]]
    ends = [len(layout.path_tokens(tree.problem, steps[:count])) for count in range(4)]
    assert reading is not None
    found = expected(made[1], layout.path_tokens(tree.problem, steps), ends)
    assert reading.attention == pytest.approx(found, abs=1e-5)
