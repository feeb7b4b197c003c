"""A reader says of steps what reading each path alone says, whatever is asked in what order, each token once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradatim.budget import Account
from gradatim.engine.distributions import entropy
from gradatim.engine.head_shape import HeadShape
from gradatim.engine.heads import attach_heads, heads_of
from gradatim.engine.reader import NEXT_TOKEN, SCORE, Reader
from gradatim.engine.reading import Reading
from gradatim.errors import GradatimError
from gradatim.policies.transformers import TransformersPolicy
from gradatim.text.prompts import prompt_tokens
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from test_policies_exact import SHORT, grow, make_policy, make_tree, teacher_forced
from test_scorers_process_reward import random_tree, read_tokens
from tiny_models import BOUNDARY, FAMILIES, byte_pair_tokenizer, prompt, tiny_causal, tiny_classifier, word_tokenizer

EVERYTHING: dict[str, Any] = {"log_probabilities": True, "hidden": True, "heads": ("value", NEXT_TOKEN)}


def with_head(family: str = "llama", **options: Any) -> Any:
    """A model with a value head."""
    model = tiny_causal(family, **options)
    attach_heads(model, {"value": HeadShape(2)})
    torch.manual_seed(5)
    nn.init.normal_(heads_of(model)["value"].weight)
    return model


def read(reader: Reader, nodes: list[Node], **asked: Any) -> list[Reading | None]:
    return asyncio.run(reader.read(nodes, **asked))


def assert_exact(model: Any, node: Node, reading: Reading | None) -> None:
    """Everything that was read is what the untouched model gives for the node's path alone."""
    assert reading is not None
    tokens = node.tokens_before_observation
    with torch.no_grad():
        output = model(input_ids=torch.tensor([tokens]), output_hidden_states=True, use_cache=False)
    last = output.hidden_states[-1][0, -1]
    if reading.log_probabilities is not None:
        expected = torch.zeros(0) if node.is_root else teacher_forced(model, node)
        torch.testing.assert_close(torch.tensor(reading.log_probabilities), expected, atol=1e-5, rtol=0)
    if reading.hidden is not None:
        torch.testing.assert_close(reading.hidden, last, atol=1e-5, rtol=1e-5)
    for name, found in reading.heads.items():
        with torch.no_grad():
            expected = output.logits[0, -1] if name in (SCORE, NEXT_TOKEN) else heads_of(model)[name](last)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


async def read_in_parts(reader: Reader, tree: Tree, seed: int) -> list[tuple[Node, Reading | None]]:
    """Read all nodes of a tree in a random order, some together, and everything of each in the end."""
    source = random.Random(seed)
    found: list[tuple[Node, Reading | None]] = []

    async def part(nodes: list[Node]) -> None:
        asked: dict[str, Any] = {
            "log_probabilities": source.random() < 0.5,
            "hidden": source.random() < 0.5,
            "heads": source.sample(reader.heads, source.randint(0, len(reader.heads))),
            "keep": source.random() < 0.8,
        }
        found.extend(zip(nodes, await reader.read(nodes, **asked), strict=True))

    for _ in range(2):
        nodes = source.sample(tree.nodes, len(tree))
        parts = [nodes[start : start + 6] for start in range(0, len(nodes), 6)]
        await asyncio.gather(*map(part, parts[:2]))
        for each in parts[2:]:
            await part(each)
    return found


@pytest.mark.parametrize("memory_bytes", [0, 20_000, 1 << 30])
@pytest.mark.parametrize("family", FAMILIES)
def test_readings_equal_those_of_each_path_alone(family: str, memory_bytes: int) -> None:
    reader = Reader(with_head(family), memory_bytes=memory_bytes, tokens_per_pass=100)
    trees = [random_tree(seed) for seed in range(3)]

    async def together() -> list[list[tuple[Node, Reading | None]]]:
        return await asyncio.gather(*(read_in_parts(reader, tree, seed) for seed, tree in enumerate(trees)))

    readings = asyncio.run(together())
    model = with_head(family)
    for node, reading in (each for of_tree in readings for each in of_tree):
        assert_exact(model, node, reading)
    assert reader.tree_model.store.used_bytes <= memory_bytes
    assert [tree.budget.total for tree in trees] == [read_tokens(tree) for tree in trees]


def test_a_classifier_has_its_score() -> None:
    reader, tree = Reader(tiny_classifier(labels=2)), random_tree(1)
    assert reader.heads == [SCORE]
    for node, reading in zip(tree.nodes, read(reader, tree.nodes, heads=[SCORE], hidden=True), strict=True):
        assert_exact(tiny_classifier(labels=2), node, reading)


def test_measures_of_distributions_are_computed_a_few_tokens_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, model, tree = Reader(tiny_causal()), tiny_causal(), random_tree(4)
    monkeypatch.setattr("gradatim.engine.tree_model._LOGITS", 3 * 40)
    sizes: list[int] = []

    def largest(distributions: torch.Tensor) -> torch.Tensor:
        sizes.append(len(distributions))
        return distributions.max(dim=-1).values

    readings = read(reader, tree.nodes, measures=(entropy, largest), log_probabilities=True)
    for node, reading in zip(tree.nodes, readings, strict=True):
        assert_exact(model, node, reading)
        assert reading is not None
        if node.parent is None:
            assert reading.measures == ((), ())
            continue
        before = len(node.parent.tokens)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([node.tokens_before_observation])).logits[0, before - 1 : -1]
        expected = torch.distributions.Categorical(logits=logits)
        torch.testing.assert_close(torch.tensor(reading.measures[0]), expected.entropy(), atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.tensor(reading.measures[1]), expected.logits.max(-1).values, atol=1e-5, rtol=0)
    assert max(sizes) == 3
    assert sum(sizes) <= reader.statistics.tokens  # siblings have one distribution before them
    assert read(reader, tree.nodes, measures=(entropy,))[1] is not None
    assert reader.statistics.recomputed == 0


def test_what_is_read_aside_is_no_part_of_the_tree() -> None:
    reader, model, tree = Reader(tiny_causal()), tiny_causal(), random_tree(5)
    before = len(tree)
    for node in tree.nodes:
        tokens = [7, 8, 9]
        for _ in range(2):
            (reading,) = read(reader, [reader.aside(node, tokens)], log_probabilities=True, heads=[NEXT_TOKEN])
            assert reading is not None
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*node.tokens, *tokens]])).logits[0]
            expected = logits.log_softmax(-1)[range(-4, -1), tokens]
            torch.testing.assert_close(torch.tensor(reading.log_probabilities), expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(reading.heads[NEXT_TOKEN], logits[-1], atol=1e-5, rtol=1e-5)
    everything = sum(len(node.step.tokens_with_observation) for node in tree.nodes)
    assert tree.budget.read("reader") == everything + 3 * before  # each of them once
    assert (len(tree), reader.statistics.recomputed) == (before, 3 * before)
    reader.release(tree)
    assert reader.tree_model.store.used_bytes == 0


def test_what_is_read_aside_stands_where_the_text_ended() -> None:
    tokenizer = word_tokenizer()
    tree = text_tree({" 4 5\n": 0})
    tree.add(tree.nodes[1], Step((), " 6", end=EndReason.END_OF_TEXT))
    tree.add(tree.nodes[1], Step((), "", end=EndReason.END_OF_TEXT))
    reader = Reader(tiny_causal(), tokenizer)
    start = [7, 8, 9, BOUNDARY, 4, 5, BOUNDARY]
    for node, path in zip(tree.nodes[1:], (start, [*start, 6], start), strict=True):
        assert reader.aside(node, [11]).tokens == [*path, 11]


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_what_is_asked_for_later_is_computed_from_what_is_kept(seed: int) -> None:
    reader, model, tree = Reader(with_head()), with_head(), random_tree(seed)
    for order in (tree.nodes, random.Random(seed).sample(tree.nodes, len(tree))):
        for asked in ({"hidden": True}, {"log_probabilities": True}, {"heads": ["value"]}, EVERYTHING):
            for node, reading in zip(order, read(reader, order, **asked), strict=True):
                assert_exact(model, node, reading)
    assert reader.statistics.tokens == read_tokens(tree)
    assert reader.statistics.recomputed == 0
    assert tree.budget.total == read_tokens(tree)


def test_what_was_evicted_is_computed_again_and_counted() -> None:
    reader, tree = Reader(with_head(), memory_bytes=0), random_tree(3)
    read(reader, tree.nodes, hidden=True)
    assert (reader.statistics.tokens, reader.statistics.recomputed) == (read_tokens(tree), 0)
    read(reader, tree.nodes, log_probabilities=True)
    again = read_tokens(tree) - len(list(tree.leaves()))  # nothing is predicted by the last token of a leaf
    assert (reader.statistics.tokens, reader.statistics.recomputed) == (read_tokens(tree) + again, again)
    assert tree.budget.total == read_tokens(tree)


def test_a_cached_step_below_one_that_was_evicted_is_used() -> None:
    reader, tree = Reader(with_head()), random_tree(3)
    read(reader, tree.nodes, hidden=True)
    inner = next(node for node in tree.nodes[1:] if node.children)
    reader.tree_model.store._drop((id(tree), inner.id))
    below = inner.children[0]
    assert_exact(with_head(), below, read(reader, [below], log_probabilities=True)[0])
    assert reader.statistics.recomputed == len(inner.step.tokens) + len(inner.step.observation)


def test_whole_trees_are_read_in_rows_and_nothing_is_kept() -> None:
    reader, trees = Reader(with_head(), tokens_per_pass=400), [random_tree(seed) for seed in range(8)]
    nodes, model = [node for tree in trees for node in tree.nodes], with_head()
    for node, reading in zip(nodes, read(reader, nodes, keep=False, **EVERYTHING), strict=True):
        assert_exact(model, node, reading)
    assert reader.tree_model.store.used_bytes == 0
    assert reader.statistics.tokens == sum(map(read_tokens, trees))
    assert reader.statistics.passes < len(trees)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), limit=st.integers(0, 300))
def test_each_account_pays_for_each_token_once(seed: int, limit: int) -> None:
    tree, source = random_tree(seed, nodes=15, limit=limit), random.Random(seed)
    reader, accounts = Reader(tiny_causal()), [Account("judge"), Account("reference")]
    paid: dict[str, dict[int, int]] = {account.name: {} for account in accounts}
    total = 0
    for node in source.choices(tree.nodes, k=30):
        account = source.choice(accounts)
        known = paid[account.name]
        lengths = {n.id: len(n.step.tokens) + len(n.step.observation) * (n is not node) for n in node.path()}
        cost = sum(max(0, length - known.get(id, 0)) for id, length in lengths.items())
        reading = read(reader, [node], hidden=True, account=account)[0]
        assert (reading is not None) == (total + cost <= limit)
        if reading is not None:
            total += cost
            known.update({id: max(length, known.get(id, 0)) for id, length in lengths.items()})
    assert {name: tree.budget.read(name) for name in paid} == {n: sum(known.values()) for n, known in paid.items()}
    assert tree.budget.total == total <= limit


def test_what_the_policy_wrote_itself_costs_nothing_and_is_what_it_recorded() -> None:
    policy = make_policy()
    trees = asyncio.run(grow(policy))
    reader = policy.reader(account=Account("reference"))
    assert reader.model is policy.model
    before = [tree.budget.to_json() for tree in trees]
    tokens = policy.statistics.tokens
    steps = [node for tree in trees for node in tree.nodes[1:]]
    for node, reading in zip(steps, read(reader, steps, log_probabilities=True), strict=True):
        assert reading is not None
        assert reading.log_probabilities == node.step.log_probabilities
    assert [tree.budget.to_json() for tree in trees] == before
    assert policy.statistics.tokens == tokens
    model = tiny_causal()
    for node, reading in zip(steps, read(reader, steps, hidden=True, log_probabilities=True), strict=True):
        assert_exact(model, node, reading)
    assert [tree.budget.read("reference") for tree in trees] == list(map(read_tokens, trees))


def test_a_reader_of_the_policys_account_reads_on_from_what_the_policy_cached_and_paid() -> None:
    policy, tree = make_policy(), make_tree()
    children = list(dict.fromkeys(asyncio.run(policy.extend([tree.root], 4))))
    tokens, spent = policy.statistics.tokens, tree.budget.total
    readings = read(policy.reader(), children, hidden=True)
    for node, reading in zip(children, readings, strict=True):
        assert_exact(tiny_causal(), node, reading)
    assert policy.statistics.tokens == tokens + len(children)  # the last token of each, which it had not read yet
    assert policy.statistics.recomputed == 0
    assert tree.budget.total == spent
    assert asyncio.run(policy.extend([child for child in children if child.open], 2))


def test_steps_of_another_policy_are_computed() -> None:
    tree = make_tree(3)
    asyncio.run(make_policy().extend([tree.root], 4))
    other = TransformersPolicy(tiny_causal(seed=1), word_tokenizer(), sampling=SHORT)
    for node, reading in zip(tree.nodes, read(other.reader(), tree.nodes, log_probabilities=True), strict=True):
        assert_exact(tiny_causal(seed=1), node, reading)


def text_tree(texts: dict[str, int]) -> Tree:
    """A tree of text: each step below the node of a number."""
    tree = Tree(Problem("p", prompt(7, 8, 9, BOUNDARY)))
    for text, parent in texts.items():
        tree.add(tree.nodes[parent], Step((), text))
    return tree


def test_a_tree_of_text_is_read_in_the_models_tokens() -> None:
    tokenizer = word_tokenizer()
    tree = text_tree({" 4 5\n": 0, " 6 7\n": 1, " 9\n": 1, " 11 12 13\n": 3})
    reader = Reader(tiny_causal(), tokenizer)
    readings = read(reader, tree.nodes, log_probabilities=True, hidden=True)
    assert [len(reading.log_probabilities or ()) for reading in readings if reading] == [0, 3, 3, 2, 4]
    before = prompt_tokens(tokenizer, tree.problem, None)
    same = Tree(tree.problem, prompt_tokens=before)
    for node in tree.nodes[1:]:
        assert node.parent is not None
        same.add(same.nodes[node.parent.id], Step(tuple(tokenizer(node.step.text)["input_ids"]), node.step.text))
    for node, reading in zip(same.nodes, readings, strict=True):
        assert_exact(tiny_causal(), node, reading)
    assert tree.budget.total == read_tokens(same)
    reader.release(tree)
    assert reader.tree_model.store.used_bytes == 0


def test_a_step_that_changes_the_tokens_before_it_has_those_that_differ() -> None:
    """The tokenizer merges across the boundary, so that the path is written anew."""

    def path_tokens(problem: Problem, steps: Sequence[Step]) -> list[int]:
        text = problem.prompt + "".join(step.text for step in steps)
        return list(tokenizer(text)["input_ids"])

    tokenizer = byte_pair_tokenizer(["one two three"] * 50, size=300)
    tree = Tree(Problem("p", "one t"))
    first = tree.add(tree.root, Step((), "w"))
    second = tree.add(first, Step((), "o three"))
    reader = Reader(tiny_causal(vocabulary=300), path_tokens=path_tokens)
    readings = read(reader, [first, second], log_probabilities=True)
    for node, reading in zip((first, second), readings, strict=True):
        assert reading is not None
        assert node.parent is not None
        before = path_tokens(tree.problem, [Step((), node.parent.text)])
        tokens = path_tokens(tree.problem, [Step((), node.text)])
        shared = next((i for i in range(len(before)) if before[i] != tokens[i]), len(before))
        with torch.inference_mode():
            logits = tiny_causal(vocabulary=300)(input_ids=torch.tensor([tokens])).logits[0]
        expected = logits.log_softmax(-1)[range(shared - 1, len(tokens) - 1), tokens[shared:]]
        torch.testing.assert_close(torch.tensor(reading.log_probabilities), expected, atol=1e-5, rtol=0)


def test_what_cannot_be_read_is_told() -> None:
    with pytest.raises(GradatimError, match="no head 'worth'; those that it has are: next_token, value"):
        read(Reader(with_head()), random_tree(1).nodes, heads=["worth"])
    with pytest.raises(GradatimError, match="text without tokens; give the reader the model's tokenizer"):
        read(Reader(tiny_causal()), text_tree({" 4\n": 0}).nodes, hidden=True)
    without = Tree(Problem("p", ""))
    without.add(without.root, Step((5, 6), ""))
    with pytest.raises(GradatimError, match="a prompt without tokens"):
        read(Reader(tiny_causal()), without.nodes[1:], log_probabilities=True)
    broken = tiny_causal()
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("inf"))
    reader = Reader(tiny_causal())
    reader.model.lm_head.weight = broken.lm_head.weight
    with pytest.raises(GradatimError, match="a log-probability that is not a number"):
        read(reader, random_tree(1).nodes, log_probabilities=True)


def test_what_is_too_long_is_left_out_and_counted() -> None:
    reader, tree = Reader(tiny_causal(positions=21)), Tree(Problem("p", ""), prompt_tokens=tuple(range(4, 14)))
    short, fits, long = (tree.add(tree.root, Step((5,) * count, "")) for count in (3, 11, 12))
    with pytest.warns(UserWarning, match=r"has 22 tokens, but the model reads at most 21, so it stays unread"):
        readings = read(reader, [long, short, fits], log_probabilities=True)
    assert [reading is None for reading in readings] == [True, False, False]
    assert reader.too_long.count == 1
    assert tree.budget.total == 10 + 3 + 11


def test_what_is_made_of_the_models_own_outputs_is_its_head() -> None:
    reader = Reader(tiny_causal(), judgement=lambda logits: logits[:, [5, 7]].softmax(dim=-1))
    nodes = random_tree(2).nodes
    for node, reading in zip(nodes, read(reader, nodes, heads=[NEXT_TOKEN]), strict=True):
        assert reading is not None
        with torch.no_grad():
            logits = tiny_causal()(input_ids=torch.tensor([node.tokens_before_observation])).logits[0, -1]
        torch.testing.assert_close(reading.heads[NEXT_TOKEN], logits[[5, 7]].softmax(dim=-1), atol=1e-5, rtol=0)
