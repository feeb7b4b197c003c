"""The engine's bookkeeping: budgets, step ends, text, cancellation and failure."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.budget import Budget
from gradatim.errors import GradatimError
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.search import IndependentSampling, search_many
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import EndReason, Problem, Step, Tree
from test_policies_exact import SHORT, assert_exact, make_policy, make_tree, structure, work
from tiny_models import BOUNDARY, END, byte_pair_tokenizer, prompt, tiny_causal, word_tokenizer

TEXTS = ["Es grünt so grün.\n", "2 + 3 = 5\nso 5 * 4 = 20\n", "日本語のテキスト\n\n", "naïve café, déjà vu 🙂🙃\n"] * 20


def limited(limit: int | None, number: int = 0) -> Tree:
    tree = make_tree(number)
    return Tree(tree.problem, budget=Budget(limit))


def written(tree: Tree) -> int:
    """Tokens that the policy wrote: each node's as often as it was drawn, where no node has children drawn apart."""
    return sum(len(node.step.tokens) * node.multiplicity for node in tree.nodes[1:])


def test_the_engine_is_a_policy() -> None:
    assert isinstance(make_policy(), Policy)


# Budgets


@settings(max_examples=20, deadline=None)
@given(limit=st.integers(0, 250), seed=st.integers(0, 100), branches=st.integers(1, 9))
def test_no_budget_is_exceeded(limit: int, seed: int, branches: int) -> None:
    policy = make_policy(max_branches=branches)
    trees = [limited(limit, 1), limited(None, 2)]

    async def together() -> None:
        await asyncio.gather(*(work(policy, tree, seed) for tree in trees))

    asyncio.run(together())
    budget = trees[0].budget
    assert budget.total <= limit
    assert budget.read("policy") == (len(trees[0].root.step.tokens) if len(trees[0].root.step.tokens) <= limit else 0)
    assert budget.written("policy") >= sum(len(node.step.tokens) for node in trees[0].nodes[1:])
    assert not any(node.step.end is EndReason.BUDGET for node in trees[1].nodes)


def test_a_budget_of_zero_gives_no_children() -> None:
    tree = limited(0)
    policy = make_policy()
    assert asyncio.run(policy.extend([tree.root], 4)) == []
    assert asyncio.run(policy.extend([tree.root], 4, steps=None)) == []
    assert len(tree) == 1
    assert tree.budget.total == 0
    assert policy.statistics.passes == 0


def test_a_budget_that_ends_inside_a_step_cuts_it_off() -> None:
    tree = make_tree()
    policy = make_policy()
    policy.encode(tree)
    tree.budget.limit = len(tree.root.step.tokens) + 3
    never = Sampling(temperature=0, boundary=Delimiter(at=("never",)), max_step_tokens=50)
    (child,) = asyncio.run(policy.extend([tree.root], sampling=never))
    assert len(child.step.tokens) == 3
    assert child.step.end is EndReason.BUDGET
    assert not child.open
    assert tree.budget.spent
    assert asyncio.run(policy.extend([tree.root], 2)) == []


def test_every_token_is_charged_once() -> None:
    policy = make_policy(max_branches=5)
    tree = make_tree(3)
    asyncio.run(policy.extend([tree.root], 6))
    asyncio.run(policy.extend([node for node in tree.nodes[1:] if node.open], 3))
    asyncio.run(policy.extend([tree.root], 2))
    policy.tree_model.store.clear()  # what is read again for lack of memory is not charged again
    asyncio.run(policy.extend([node for node in tree.nodes if node.open]))
    assert tree.budget.read("policy") == len(tree.root.step.tokens)
    assert tree.budget.written("policy") == written(tree)
    assert tree.budget.read("scorer") == tree.budget.written("scorer") == 0


def test_steps_written_by_another_are_charged_as_read() -> None:
    tree, first, second = make_tree(), make_policy(), make_policy()
    children = list(dict.fromkeys(asyncio.run(first.extend([tree.root], 3))))
    before = tree.budget.read("policy")
    node = next(child for child in children if child.open)
    asyncio.run(second.extend([node]))
    assert tree.budget.read("policy") == before + len(node.tokens)


# Steps


@pytest.mark.parametrize("ends", [("\n",), ("\n", " 1"), (" 12", "\n")])
def test_steps_end_at_the_first_boundary(ends: tuple[str, ...]) -> None:
    policy = make_policy(sampling=Sampling(boundary=Delimiter(at=ends), max_step_tokens=12, max_steps=4))
    trees = [make_tree(number) for number in range(3)]

    async def together() -> None:
        await asyncio.gather(*(work(policy, tree, 0) for tree in trees))

    asyncio.run(together())
    reasons = set()
    for tree in trees:
        for node in tree.nodes[1:]:
            step, depth = node.step, node.depth
            words = [policy.tokenizer.decode([token], skip_special_tokens=True) for token in step.tokens]
            blank = next((place for place, word in enumerate(words) if word.strip()), len(words))
            holds = [any(end in word for end in ends) and place >= blank for place, word in enumerate(words)]
            reasons.add(step.end)
            assert not any(holds[:-1])
            assert END not in step.tokens[:-1]
            assert len(step.tokens) <= 12
            if step.end is EndReason.BOUNDARY:
                assert holds[-1]
            elif step.end is EndReason.END_OF_TEXT:
                assert step.tokens[-1] == END
            elif step.end is EndReason.STEPS:
                assert holds[-1]
                assert depth == 4
            else:
                assert step.end is EndReason.LENGTH
                assert len(step.tokens) == 12
            assert depth < 4 or step.end is not EndReason.BOUNDARY
    assert {EndReason.BOUNDARY, EndReason.LENGTH} <= reasons


def test_a_boundary_of_several_tokens_is_noticed() -> None:
    policy = make_policy(sampling=Sampling(boundary=Delimiter(at=("1 2",)), max_step_tokens=40))
    tree = make_tree()
    children = list(dict.fromkeys(asyncio.run(policy.extend([tree.root], 60))))
    ended = [child for child in children if child.open]
    assert ended
    for child in children:
        assert ("1 2" in child.step.text) == child.open
        assert "1 2" not in policy.tokenizer.decode(child.step.tokens[:-1])


def test_a_rollout_runs_to_the_end_and_leaves_its_steps_in_the_tree() -> None:
    policy = make_policy()
    tree = make_tree(1)
    leaves = asyncio.run(policy.extend([tree.root], 12, steps=None))
    assert len(leaves) == 12
    assert all(not leaf.open and leaf.is_leaf for leaf in leaves)
    assert any(leaf.depth > 1 for leaf in leaves)
    assert all(1 <= leaf.depth <= SHORT.max_steps for leaf in leaves)
    assert tree.budget.written("policy") == sum(len(leaf.tokens) - len(tree.root.tokens) for leaf in leaves)
    assert all(node.open for leaf in leaves for node in leaf.path()[:-1])


def test_closed_nodes_are_passed_over() -> None:
    tree, policy = make_tree(), make_policy()
    policy.encode(tree)
    ended = tree.add(tree.root, Step((7, END), "", (), EndReason.END_OF_TEXT))
    assert asyncio.run(policy.extend([ended], 2)) == []
    assert asyncio.run(policy.extend([ended], 2, steps=None)) == []
    assert ended.is_leaf


def test_paths_end_at_the_models_last_position() -> None:
    model = tiny_causal("gpt2", positions=24)
    policy = TransformersPolicy(model, word_tokenizer(), sampling=SHORT)
    tree = Tree(Problem("a", prompt(*range(4, 20), BOUNDARY)))
    asyncio.run(policy.extend([tree.root], 8, steps=None))
    for _ in range(4):
        asyncio.run(policy.extend([node for node in tree.nodes if node.open], 2))
    lengths = [len(node.tokens) for node in tree.nodes]
    assert max(lengths) == 24
    for node, length in zip(tree.nodes, lengths, strict=True):
        assert length < 24 or node.step.end in (EndReason.LENGTH, EndReason.END_OF_TEXT)
    assert_exact(tiny_causal("gpt2", positions=24), [tree])


def test_a_prompt_that_is_too_long_stays_unexpanded_and_ends_nothing() -> None:
    policy = TransformersPolicy(tiny_causal("gpt2", positions=16), word_tokenizer(), sampling=SHORT)
    trees = [Tree(Problem(f"{length}", prompt(*[5] * length))) for length in (16, 4, 20)]
    with pytest.warns(
        UserWarning, match=r"a prompt of problem '16' has 16 tokens, .* at most 16, so it stays unexp"
    ) as told:
        asyncio.run(search_many(trees, lambda tree: IndependentSampling(n=3)(tree, policy)))
    assert len(told) == 1
    assert policy.too_long.count == 2
    assert [len(tree) > 1 for tree in trees] == [False, True, False]
    assert trees[0].budget.total == 0
    assert len(asyncio.run(policy.extend([tree.root for tree in trees], 2, steps=None))) == 2


@pytest.mark.parametrize(("text", "complaint"), [("", "empty prompt"), (" 5 what", "no tokens for part")])
def test_prompts_that_cannot_be_read(text: str, complaint: str) -> None:
    with pytest.raises(GradatimError, match=complaint):
        asyncio.run(make_policy().extend([Tree(Problem("a", text)).root]))


# Text


def test_text_is_that_of_the_tokens_and_never_tokenized_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_pair_tokenizer(TEXTS)
    policy = TransformersPolicy(tiny_causal(vocabulary=len(tokenizer)), tokenizer)
    ends = Sampling(boundary=Delimiter(at=("\n", "e", "s", "4")), max_step_tokens=30, max_steps=6)
    trees = [Tree(Problem(text, text), seed=seed) for seed, text in enumerate(sorted(set(TEXTS)))]
    for tree in trees:
        policy.encode(tree)
    monkeypatch.setattr(type(tokenizer), "__call__", None)
    monkeypatch.setattr(type(tokenizer), "encode", None)
    for tree in trees:
        asyncio.run(policy.extend([tree.root], 6, steps=None, sampling=ends))
        source = random.Random(0)
        for _ in range(3):
            asyncio.run(policy.extend([source.choice([node for node in tree.nodes if node.open])], 3, sampling=ends))
    several = 0
    for tree in trees:
        prompt_text = tokenizer.decode(tree.root.tokens)
        assert prompt_text == tree.problem.prompt
        for node in tree.nodes:
            whole = tokenizer.decode(node.tokens, skip_special_tokens=True)
            assert whole == prompt_text + node.text
            several += node.depth > 1
    assert several > 20


def test_a_character_of_several_tokens_can_end_a_step() -> None:
    tokenizer = byte_pair_tokenizer(["plain text\n"], size=260)
    tokens = tokenizer("a語b")["input_ids"]
    assert len(tokens) == 5
    policy = TransformersPolicy(tiny_causal(vocabulary=len(tokenizer)), tokenizer)
    _force(policy, [*tokens, tokens[0]])
    tree = Tree(Problem("a", "plain"))
    (child,) = asyncio.run(policy.extend([tree.root], sampling=Sampling(temperature=0, boundary=Delimiter(at=("語",)))))
    assert child.step.text == "a語"
    assert child.step.tokens == tuple(tokens[:4])


# Cancellation and failure


def test_cancelling_one_search_leaves_the_others_unharmed() -> None:
    policy = make_policy(max_branches=6)
    trees = [make_tree(number) for number in range(5)]

    async def together() -> None:
        tasks = [asyncio.create_task(work(policy, tree, seed)) for seed, tree in enumerate(trees)]
        for victim, after in ((1, 3), (3, 9)):
            for _ in range(after):
                await asyncio.sleep(0)
            tasks[victim].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [False, True, False, True, False]
        assert [
            result for result in results if result is not None and not isinstance(result, asyncio.CancelledError)
        ] == []

    asyncio.run(together())
    for number in (0, 2, 4):
        alone = make_tree(number)
        asyncio.run(work(make_policy(), alone, number))
        assert structure(trees[number]) == structure(alone)
    assert not policy._branches
    assert not policy._waiting


@pytest.mark.parametrize("failing_pass", [1, 2, 4])
def test_an_exception_in_the_model_reaches_all_callers(failing_pass: int) -> None:
    policy = make_policy(max_branches=8)
    forward, passes = policy.model.forward, 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes == failing_pass:
            raise RuntimeError("out of memory")
        return forward(*arguments, **options)

    policy.model.forward = failing
    trees = [make_tree(number) for number in range(4)]

    async def together() -> list[Any]:
        unlooked: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unlooked.append(context))
        calls = [policy.extend([tree.root], 3) for tree in trees]
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), timeout=20)
        assert unlooked == []
        return results

    results = asyncio.run(together())
    assert [str(result) for result in results] == ["out of memory"] * 4
    for number, tree in enumerate(trees):
        asyncio.run(policy.extend([tree.root], 3))
        assert len(tree) > 1
        fresh = make_tree(number)
        asyncio.run(policy.extend([fresh.root], 3))
    assert_exact(tiny_causal(), trees)


def test_a_request_that_the_budget_cannot_pay_for_waits_for_nobody() -> None:
    policy = make_policy(max_branches=1)
    rich, poor = make_tree(1), limited(0, 2)

    async def together() -> None:
        first = asyncio.create_task(policy.extend([rich.root], 2))
        await asyncio.sleep(0)
        assert await policy.extend([poor.root], 2) == []
        assert not first.done()
        assert await first

    asyncio.run(together())


def test_a_policy_outlives_its_event_loop() -> None:
    policy, tree = make_policy(), make_tree()

    async def interrupted() -> None:
        task = asyncio.create_task(policy.extend([tree.root], 5))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(interrupted())
    fresh = make_tree()
    asyncio.run(policy.extend([fresh.root], 5))
    assert len(fresh) > 1
    assert_exact(tiny_causal(), [fresh])


def test_releasing_a_tree_frees_its_memory() -> None:
    policy = make_policy()
    trees = [make_tree(1), make_tree(2)]
    for tree in trees:
        asyncio.run(policy.extend([tree.root], 4))
    policy.release(trees[0])
    remaining = policy.tree_model.store.used_bytes
    assert remaining > 0
    policy.release(trees[1])
    assert policy.tree_model.store.used_bytes == 0
    child = next(node for node in trees[0].nodes[1:] if node.open)
    asyncio.run(policy.extend([child], 2))
    assert_exact(tiny_causal(), trees)


def _force(policy: TransformersPolicy, tokens: list[int]) -> None:
    """Make the policy write ``tokens`` after any prompt, at temperature 0."""
    remaining = iter(tokens)

    def forced(compute: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def computing(*arguments: Any) -> torch.Tensor:
            logits = torch.zeros_like(compute(*arguments))
            logits[..., next(remaining)] = 9.0
            return logits

        return computing

    policy.tree_model.outputs = forced(policy.tree_model.outputs)  # type: ignore[method-assign]
    policy.tree_model.forward = forced(policy.tree_model.forward)  # type: ignore[method-assign]
