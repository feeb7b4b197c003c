"""The incremental process-reward scorer gives what re-reading every path would give."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.budget import Budget, Spent
from gradatim.errors import GradatimError
from gradatim.scorers.base import Scorer
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.search.beam import Beam
from gradatim.tree import EndReason, Node, Step, Tree
from test_policies_exact import make_policy, make_tree
from tiny_models import BOUNDARY, tiny_classifier


def make_scorer(family: str = "llama", labels: int = 1, **options: Any) -> ProcessRewardScorer:
    return ProcessRewardScorer(tiny_classifier(family, labels=labels), **options)


def random_tree(seed: int, nodes: int = 25, limit: int | None = None) -> Tree:
    """A random tree with steps of several lengths and some observations."""
    source = random.Random(seed)
    numbers = tuple(source.randrange(4, 40) for _ in range(source.randint(1, 12)))
    tree = Tree(make_tree(seed).problem, prompt_tokens=numbers, budget=Budget(limit))
    while len(tree) < nodes:
        step = (*(source.randrange(4, 40) for _ in range(source.randint(0, 6))), BOUNDARY)
        observation = tuple(source.randrange(4, 40) for _ in range(source.choice([0, 0, 0, 2])))
        tree.add(source.choice(tree.nodes), Step(step, "", (), EndReason.BOUNDARY, observation, ""))
    return tree


def reread(model: Any, node: Node) -> float:
    """The probability of "right" where the step ends, before what the environment wrote behind it."""
    tokens = node.tokens_before_observation
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
    return float(logits.sigmoid() if len(logits) == 1 else logits.softmax(-1)[1])


def read_tokens(tree: Tree) -> int:
    """What is read where all steps are scored: an observation only where a step follows it."""
    return sum(len(node.step.tokens) + len(node.step.observation) * bool(node.children) for node in tree.nodes)


def assert_exact(model: Any, nodes: list[Node]) -> None:
    for node in nodes:
        assert abs(node.scores["process_reward"] - reread(model, node)) < 1e-5


async def score_in_parts(scorer: ProcessRewardScorer, tree: Tree, seed: int) -> None:
    """Score all nodes in a random order, some together, some again."""
    source = random.Random(seed)
    nodes = source.sample(tree.nodes[1:], len(tree) - 1)
    parts = [nodes[start : start + 6] for start in range(0, len(nodes), 6)]
    await asyncio.gather(*map(scorer.score, parts[:2]))
    for part in parts:
        await scorer.score(part)


def test_it_is_a_scorer() -> None:
    assert isinstance(make_scorer(), Scorer)


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2", "gemma2"])
def test_scores_equal_those_of_reading_each_path_again(family: str, labels: int) -> None:
    scorer = make_scorer(family, labels, tokens_per_pass=60)
    trees = [random_tree(seed) for seed in range(3)]

    async def together() -> None:
        await asyncio.gather(*(score_in_parts(scorer, tree, seed) for seed, tree in enumerate(trees)))

    asyncio.run(together())
    model = tiny_classifier(family, labels=labels)
    for tree in trees:
        assert_exact(model, tree.nodes[1:])
        assert "process_reward" not in tree.root.scores


@pytest.mark.parametrize("memory_bytes", [0, 15_000])
def test_a_tiny_memory_changes_nothing_but_the_work(memory_bytes: int) -> None:
    scorer, tree = make_scorer(memory_bytes=memory_bytes), random_tree(7)
    asyncio.run(score_in_parts(scorer, tree, 7))
    assert_exact(tiny_classifier(), tree.nodes[1:])
    assert scorer.tree_model.store.used_bytes <= memory_bytes
    assert scorer.statistics.recomputed > 0
    assert tree.budget.read("scorer") == read_tokens(tree)


def test_each_token_is_read_once_and_charged_once() -> None:
    scorer, tree = make_scorer(), random_tree(3)
    for _ in range(2):
        for depth in range(1, max(node.depth for node in tree.nodes) + 1):
            asyncio.run(scorer.score([node for node in tree.nodes if node.depth == depth]))
    total = read_tokens(tree)
    assert tree.budget == Budget(accounts={"scorer": Spent(read=total, parameters=scorer.tree_model.parameters)})
    assert scorer.statistics.tokens == total
    assert scorer.statistics.recomputed == 0


def test_siblings_read_their_common_path_once() -> None:
    scorer, tree = make_scorer(), random_tree(4)
    leaves = list(tree.leaves())
    asyncio.run(scorer.score(leaves))
    assert scorer.statistics.tokens == read_tokens(tree)
    assert_exact(tiny_classifier(), leaves)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), limit=st.integers(0, 150))
def test_what_the_budget_cannot_pay_for_stays_unscored(seed: int, limit: int) -> None:
    tree = random_tree(seed, nodes=15, limit=limit)
    scorer = make_scorer()
    order = random.Random(seed).sample(tree.nodes[1:], len(tree) - 1)
    expected, paid, total = [], dict[int, int](), 0
    for node in order:
        lengths = {n.id: len(n.step.tokens) + len(n.step.observation) * (n is not node) for n in node.path()}
        cost = sum(max(0, length - paid.get(id, 0)) for id, length in lengths.items())
        if total + cost <= limit:
            total += cost
            paid.update({id: max(length, paid.get(id, 0)) for id, length in lengths.items()})
            expected.append(node)
    asyncio.run(scorer.score(order))
    assert [node for node in order if "process_reward" in node.scores] == expected
    assert tree.budget.read("scorer") == total <= limit
    assert_exact(tiny_classifier(), expected)


def test_known_scores_are_kept() -> None:
    scorer, tree = make_scorer(), random_tree(5)
    tree.nodes[3].scores["process_reward"] = 0.25
    asyncio.run(scorer.score([tree.nodes[3]]))
    assert tree.nodes[3].scores["process_reward"] == 0.25
    assert scorer.statistics.passes == 0


def test_two_scorers_keep_apart() -> None:
    tree = random_tree(6)
    one, two = make_scorer(name="one"), ProcessRewardScorer(tiny_classifier(seed=1), name="two")
    for scorer in (one, two):
        asyncio.run(scorer.score(tree.nodes[1:]))
    total = read_tokens(tree)
    assert tree.budget.read("scorer") == 2 * total
    for node in tree.nodes[1:]:
        assert abs(node.scores["one"] - reread(tiny_classifier(), node)) < 1e-5
        assert abs(node.scores["two"] - reread(tiny_classifier(seed=1), node)) < 1e-5


def test_policy_and_scorer_work_on_one_tree() -> None:
    policy, scorer, tree = make_policy(), make_scorer(labels=2), make_tree(2)

    async def beam() -> None:
        frontier = [tree.root]
        for _ in range(4):
            children = list(dict.fromkeys(await policy.extend(frontier, 4)))
            await scorer.score(children)
            frontier = sorted((n for n in children if n.open), key=lambda n: -n.scores["process_reward"])[:3]

    asyncio.run(beam())
    assert len(tree) > 10
    assert_exact(tiny_classifier(labels=2), tree.nodes[1:])
    assert tree.budget.read("scorer") == sum(len(node.step.tokens) for node in tree.nodes)


def test_an_exception_in_the_model_reaches_all_callers_and_the_scorer_works_on() -> None:
    scorer, trees = make_scorer(), [random_tree(seed) for seed in range(3)]
    forward = scorer.tree_model.model.forward

    def failing(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("out of memory")

    async def together() -> list[Any]:
        calls = [scorer.score(tree.nodes[1:]) for tree in trees]
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), timeout=20)

    scorer.tree_model.model.forward = failing
    assert [str(result) for result in asyncio.run(together())] == ["out of memory"] * 3
    scorer.tree_model.model.forward = forward
    assert asyncio.run(together()) == [None] * 3
    for tree in trees:
        assert_exact(tiny_classifier(), tree.nodes[1:])


def test_cancelling_one_caller_leaves_the_others_unharmed() -> None:
    scorer, trees = make_scorer(tokens_per_pass=60), [random_tree(seed) for seed in range(2)]

    async def together() -> None:
        first, second = (asyncio.create_task(scorer.score(tree.nodes[1:])) for tree in trees)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(together())
    assert_exact(tiny_classifier(), trees[1].nodes[1:])


@pytest.mark.parametrize("labels", [3, 7])
def test_other_numbers_of_labels_are_refused(labels: int) -> None:
    with pytest.raises(GradatimError, match=f"one label or two, but this one has {labels}"):
        make_scorer(labels=labels)


def passes(scorer: ProcessRewardScorer, *waiting: list[Node]) -> int:
    """The forward passes that it takes to score what several callers ask for at the same time."""
    before = scorer.statistics.passes

    async def score() -> None:
        await asyncio.gather(*map(scorer.score, waiting))

    asyncio.run(score())
    return scorer.statistics.passes - before


def test_scoring_siblings_is_one_forward_pass_however_many_there_are() -> None:
    scorer, tree, other = make_scorer(), random_tree(7, nodes=1), random_tree(8, nodes=1)
    siblings, others = (
        [each.add(each.root, Step((4 + number, BOUNDARY), "", (), EndReason.BOUNDARY)) for number in range(24)]
        for each in (tree, other)
    )
    assert passes(scorer, siblings) == 1, "the prompt and all siblings behind it"
    below = [tree.add(node, Step((5, BOUNDARY), "", (), EndReason.BOUNDARY)) for node in siblings for _ in range(2)]
    assert passes(scorer, below, others) == 1, "cousins, and siblings of another search that waits as well"
    assert_exact(tiny_classifier(), [*siblings, *below, *others])


def test_a_guided_beam_reads_each_round_in_one_forward_pass_of_the_reward_model() -> None:
    scorer, policy, tree = make_scorer(), make_policy(), make_tree(2, 3)
    asyncio.run(Beam(width=2, branch=4)(tree, policy, scorer))
    rounds = {node.depth for node in tree.nodes[1:] if "process_reward" in node.scores}
    assert len(rounds) > 2
    assert scorer.statistics.passes == len(rounds)
