"""The engine computes what the model itself computes, whatever the family, the order of work and the memory."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import torch

from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from tiny_models import BOUNDARY, FAMILIES, prompt, tiny_causal, word_tokenizer

SHORT = Sampling(max_step_tokens=8, max_steps=5, boundary=Delimiter(at=("\n", " 1")))  # 11 of 40 tokens end a step


def make_policy(family: str = "llama", device: str = "cpu", **options: Any) -> TransformersPolicy:
    return TransformersPolicy(tiny_causal(family).to(device), word_tokenizer(), **{"sampling": SHORT} | options)


def make_tree(number: int = 0, seed: int = 0) -> Tree:
    source = random.Random(number)
    numbers = [source.randrange(4, 40) for _ in range(source.randint(2, 14))]
    return Tree(Problem(str(number), prompt(*numbers, BOUNDARY)), seed=seed)


def reference(policy: TransformersPolicy, family: str = "llama") -> Any:
    """The same model, untouched by the engine."""
    return tiny_causal(family).to(policy.model.device)


def teacher_forced(model: Any, node: Node) -> torch.Tensor:
    """Log-probability of each of the node's tokens, from its whole path read at once: (tokens,)."""
    assert node.parent is not None
    before = node.parent.tokens
    ids = torch.tensor([[*before, *node.step.tokens]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0].float().cpu()
    chosen = ids[0, len(before) :, None].cpu()
    return logits[len(before) - 1 : -1].log_softmax(-1).gather(-1, chosen)[:, 0]


def assert_exact(model: Any, trees: list[Tree], tolerance: float = 1e-5) -> None:
    for tree in trees:
        for node in tree.nodes[1:]:
            recorded = torch.tensor(node.step.log_probabilities)
            torch.testing.assert_close(recorded, teacher_forced(model, node), atol=tolerance, rtol=0)


async def work(policy: TransformersPolicy, tree: Tree, seed: int) -> None:
    """Extend nodes of one tree in a random order by some steps or all, old ones again and several at once."""
    source = random.Random(seed)
    await policy.extend([tree.root], 4)
    for _ in range(5):
        open_nodes = [node for node in tree.nodes if node.open]
        chosen = source.sample(open_nodes, min(3, len(open_nodes)))
        if source.random() < 0.3:
            await policy.extend(chosen, source.randint(1, 2), steps=None)
        else:
            await policy.extend(chosen, source.randint(1, 4), steps=source.choice([1, 1, 2, 3]))


async def grow(policy: TransformersPolicy, count: int = 4) -> list[Tree]:
    trees = [make_tree(number) for number in range(count)]
    await asyncio.gather(*(work(policy, tree, seed) for seed, tree in enumerate(trees)))
    return trees


def structure(tree: Tree) -> list[tuple[int | None, tuple[int, ...], str, EndReason, int, int]]:
    """All of a tree but its log-probabilities, which may differ in their last bits."""
    return [
        (node.parent and node.parent.id, node.step.tokens, node.step.text, node.step.end, node.multiplicity, node.key)
        for node in tree.nodes
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_equal_teacher_forced_ones(family: str) -> None:
    policy = make_policy(family)
    trees = asyncio.run(grow(policy))
    assert sum(map(len, trees)) > 100
    assert max(len(node.tokens) for tree in trees for node in tree.nodes) > 20  # beyond every window
    assert_exact(reference(policy, family), trees)


@pytest.mark.parametrize("family", ["llama_grouped", "gemma2", "gpt2"])
def test_a_tiny_memory_changes_nothing_but_the_work(family: str) -> None:
    roomy = make_policy(family)
    cramped = make_policy(family, memory_bytes=20_000)
    highest = 0
    put = cramped.tree_model.store.put

    def watched(*arguments: Any) -> None:
        nonlocal highest
        put(*arguments)
        highest = max(highest, cramped.tree_model.store.used_bytes)

    cramped.tree_model.store.put = watched  # type: ignore[method-assign]
    expected, trees = asyncio.run(grow(roomy)), asyncio.run(grow(cramped))
    assert list(map(structure, trees)) == list(map(structure, expected))
    assert [tree.budget for tree in trees] == [tree.budget for tree in expected]
    assert_exact(reference(cramped, family), trees)
    assert 0 < highest <= 20_000
    assert cramped.tree_model.store.evicted > 0
    assert cramped.statistics.recomputed > roomy.statistics.recomputed
    assert cramped.statistics.tokens > roomy.statistics.tokens


@pytest.mark.parametrize("family", ["llama_grouped", "gemma2"])
def test_wide_trees(family: str) -> None:
    """More branches of a tree and of a node than share one copy of its path, leaving at very different times."""
    policy = make_policy(family, max_branches=100)
    trees = [make_tree(number) for number in range(3)]

    async def widen(tree: Tree, count: int) -> None:
        await policy.extend([tree.root], count)
        await policy.extend([node for node in tree.nodes[1:] if node.open][:3], count)

    async def together() -> None:
        await asyncio.gather(*(widen(tree, count) for tree, count in zip(trees, (3, 40, 70), strict=True)))

    asyncio.run(together())
    assert max(len(node.children) for tree in trees for node in tree.nodes) > 32
    assert_exact(reference(policy, family), trees)
    for tree, count in zip(trees, (3, 40, 70), strict=True):
        alone, narrow = make_tree(int(tree.problem.id)), make_policy(family, max_branches=4)
        asyncio.run(narrow.extend([alone.root], count))
        asyncio.run(narrow.extend([node for node in alone.nodes[1:] if node.open][:3], count))
        assert structure(tree) == structure(alone)


def test_without_rollouts_nothing_is_computed_twice() -> None:
    policy = make_policy()

    async def search(tree: Tree) -> None:
        for _ in range(4):
            await policy.extend([node for node in tree.nodes if node.open][-4:], 3)

    async def searches(trees: list[Tree]) -> None:
        await asyncio.gather(*map(search, trees))

    trees = [make_tree(number) for number in range(3)]
    asyncio.run(searches(trees))
    assert policy.statistics.recomputed == 0
    # A step's last token is read only where the step is continued, and steps drawn twice are computed twice.
    drawn = sum(len(node.step.tokens) * node.multiplicity for tree in trees for node in tree.nodes)
    assert policy.statistics.tokens <= drawn


def test_paths_that_share_missing_nodes_are_computed_once() -> None:
    policy = make_policy()
    tree = make_tree()
    policy.encode(tree)
    stem = tree.add(tree.root, Step((5, 6, 7, BOUNDARY), ""))
    forks = [tree.add(stem, Step((number, BOUNDARY), "")) for number in range(8, 12)]
    leaves = [tree.add(fork, Step((number, BOUNDARY), "")) for fork in forks for number in (20, 21)]
    states = policy.tree_model.compute([*leaves, stem])
    assert policy.statistics.tokens == len(tree.root.step.tokens) + 4 + 4 * 2 + 8 * 2
    assert policy.statistics.passes == 1
    model = reference(policy)
    for node, path in zip([*leaves, stem], states, strict=True):
        assert [state.tokens for state in path] == [len(each.step.tokens) for each in node.path()]
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([node.tokens])).logits[0, -1:]
        found = policy.tree_model.outputs(path[-1].hidden[-1:])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_observations_condition_what_follows() -> None:
    policy = make_policy("qwen3")
    tree = make_tree()
    policy.encode(tree)
    acted = tree.add(tree.root, Step((9, BOUNDARY), "", (-1.0, -1.0), EndReason.BOUNDARY, (12, 13, 14), ""))
    children = list(dict.fromkeys(asyncio.run(policy.extend([acted], 4))))
    model = reference(policy, "qwen3")
    for child in children:
        assert child.tokens[: -len(child.step.tokens)][-3:] == [12, 13, 14]
        recorded = torch.tensor(child.step.log_probabilities)
        torch.testing.assert_close(recorded, teacher_forced(model, child), atol=1e-5, rtol=0)
    assert tree.budget.read("policy") == len(tree.root.step.tokens) + 5


@pytest.mark.parametrize("family", ["llama", "gemma3", "mistral"])
def test_greedy_equals_generate(family: str) -> None:
    never = Sampling(temperature=0, max_step_tokens=30, boundary=Delimiter(at=("never",)))
    policy = make_policy(family, sampling=never)
    trees = [make_tree(number) for number in range(6)]

    async def all_greedy() -> list[Node]:
        calls = [policy.extend([tree.root], steps=None) for tree in trees]
        return [node for nodes in await asyncio.gather(*calls) for node in nodes]

    leaves = asyncio.run(all_greedy())
    model = reference(policy, family)
    for leaf in leaves:
        ids = torch.tensor([leaf.tree.root.tokens])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30)
        assert leaf.tokens == output[0].tolist()


def test_after_training_refresh_forgets_the_old_weights() -> None:
    policy = make_policy()
    tree = make_tree()
    asyncio.run(policy.extend([tree.root], 2))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(0.5)
    policy.model.train()
    policy.refresh()
    fresh = make_tree()
    node = next(node for node in tree.nodes[1:] if node.open)
    asyncio.run(policy.extend([node, fresh.root], 2))
    model = tiny_causal()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    for child in [*node.children, *fresh.root.children]:
        recorded = torch.tensor(child.step.log_probabilities)
        torch.testing.assert_close(recorded, teacher_forced(model, child), atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", ["llama_grouped", "gemma2"])
def test_on_cuda(family: str) -> None:
    policy = make_policy(family, device="cuda")
    trees = asyncio.run(grow(policy))
    assert_exact(reference(policy, family), trees, tolerance=1e-3)
