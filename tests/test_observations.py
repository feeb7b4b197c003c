"""Scorers and training read a step at its own last token, before what the environment wrote after it, and alike."""

from __future__ import annotations

import asyncio
import copy
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from gradatim.engine.reader import Reader
from gradatim.scorers.apart import Apart
from gradatim.scorers.layouts import OwnLayout
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.supervision.terms import labelled_step
from gradatim.text.transcript import own_tokens, tokenized
from gradatim.training.forward import step_logits
from gradatim.training.rows import build_row
from gradatim.tree import Node, Problem, Step, Tree
from tiny_models import byte_pair_tokenizer, tiny_causal, tiny_classifier
from training_models import path_log_probabilities, random_tree

SEEDS = range(4)


def text_tree(seed: int) -> Tree:
    """A random tree of text in which the environment answers half of the steps, in the text of the next line."""
    source = random.Random(seed)
    tree = Tree(Problem(f"text-{seed}", "what is it?\n"))
    words = ["add", "two", "and", "three", "so", "it", "is", "five"]
    while len(tree) < 14:
        step, seen = (" ".join(source.choices(words, k=source.randint(1, 4))) for _ in range(2))
        observed = f"{seen}\n" if source.random() < 0.5 else ""
        tree.add(source.choice(tree.nodes), Step((), f"{step}\n", observation_text=observed))
    return tree


def trained_on(model: Any, tree: Tree) -> list[float]:
    """What training reads of each step: the probability that it is right."""
    row = build_row([labelled_step(node, 1.0) for node in tree.nodes[1:]])
    with torch.no_grad():
        return step_logits(model, row).sigmoid().tolist()


def alone(model: Any, tokens: list[int]) -> float:
    """The slow way: a plain pass over a path that is cut off at the step's last token."""
    with torch.no_grad():
        return float(model(torch.tensor([tokens])).logits[0, -1, 0].sigmoid())


def scores(scorer: ProcessRewardScorer, tree: Tree, seed: int) -> list[float]:
    """Asked for in a random order, some together."""
    nodes: list[Node] = random.Random(seed).sample(tree.nodes[1:], len(tree) - 1)

    async def ask() -> None:
        await scorer.score(nodes[:3])
        await asyncio.gather(*(scorer.score([node]) for node in nodes[3:8]))
        await scorer.score(nodes)

    asyncio.run(ask())
    return [node.scores[scorer.name] for node in tree.nodes[1:]]


def read_once(tree: Tree) -> int:
    """The tokens that all scores need: an observation only where a step was written after it."""
    return sum(len(node.step.tokens) + len(node.step.observation) * bool(node.children) for node in tree.nodes)


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_trees_own_tokens(seed: int) -> None:
    tree, model = random_tree(seed, nodes=20), tiny_classifier("llama", vocabulary=97)
    assert any(node.step.observation and node.children for node in tree.nodes)
    assert any(node.step.observation and not node.children for node in tree.nodes)
    expected = [alone(model, node.tokens_before_observation) for node in tree.nodes[1:]]
    assert trained_on(model, tree) == pytest.approx(expected, abs=1e-5)
    assert scores(ProcessRewardScorer(copy.deepcopy(model)), tree, seed) == pytest.approx(expected, abs=1e-5)
    assert tree.budget.total == read_once(tree)


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_trees_text(seed: int) -> None:
    """A tree of text is scored through its transcript and trained on as a copy in the model's tokens."""
    tree, tokenizer = text_tree(seed), byte_pair_tokenizer(["what is it? add two and three so it is five"], size=280)
    model = tiny_classifier("llama", vocabulary=len(tokenizer))
    path_tokens, inside = own_tokens(tokenizer), tokenized(tree, tokenizer)
    expected = [alone(model, node.tokens_before_observation) for node in inside.nodes[1:]]
    for node, value in zip(tree.nodes[1:], expected, strict=True):
        *before, last = (each.step for each in node.path()[1:])
        tokens = path_tokens(tree.problem, [*before, Step((), last.text)])
        assert alone(model, tokens) == pytest.approx(value, abs=1e-5)
    assert trained_on(model, inside) == pytest.approx(expected, abs=1e-5)
    scorer = ProcessRewardScorer(copy.deepcopy(model), layout=OwnLayout(tokenizer))
    assert scores(scorer, tree, seed) == pytest.approx(expected, abs=1e-5)
    assert tree.budget.total == read_once(inside)


@pytest.mark.parametrize("seed", SEEDS)
def test_log_probabilities_of_text_follow_observations(seed: int) -> None:
    tree, tokenizer = text_tree(seed), byte_pair_tokenizer(["what is it? add two and three so it is five"], size=280)
    model, inside = tiny_causal("llama", vocabulary=len(tokenizer)), tokenized(tree, tokenizer)
    with torch.no_grad():
        expected = [path_log_probabilities(model, node).tolist() for node in inside.nodes[1:]]
    reader = Reader(model, tokenizer)
    readings = asyncio.run(reader.read(tree.nodes[1:], log_probabilities=True))
    for reading, values in zip(readings, expected, strict=True):
        assert reading is not None
        assert reading.log_probabilities == pytest.approx(values, abs=1e-5)
    assert tree.budget.total == read_once(inside)


def test_a_prover_continues_what_the_environment_wrote() -> None:
    """Also where it had written the same step itself, or the environment answered later."""
    tree, apart = text_tree(0), Apart()
    own = apart.counterpart(tree.root)
    for node in tree.root.children:
        own.tree.add(own, Step((), node.step.text, source="the prover"))
    for node in tree.nodes:
        assert apart.counterpart(node).text == node.text
    leaf = tree.nodes[-1]
    leaf.step = replace(leaf.step, observation_text="seen later\n")
    assert apart.counterpart(leaf).text == leaf.text
    assert apart.counterpart(tree.root.children[0]).step.source == "the prover"
