"""Forward passes are bounded by memory, and what they compute does not depend on the bound."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gradatim.budget import Budget
from gradatim.engine.passes import next_pass
from gradatim.policies.transformers import TransformersPolicy
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.tree import Problem, Step, Tree, depth_first
from test_policies_exact import assert_exact, make_policy, make_tree, structure, work
from tiny_models import tiny_causal, tiny_classifier


@pytest.mark.parametrize(
    ("order", "tokens", "taken"),
    [
        ("aaaa", 12, 4),  # the prompt of 3 tokens once, and steps of 2
        ("aaaa", 11, 4),
        ("aaaa", 10, 3),
        ("aaaa", 1, 1),
        ("aabb", 14, 4),
        ("aabb", 13, 2),  # the second tree waits as a whole
        ("abbb", 5, 1),
        ("", 9, 0),
    ],
)
def test_a_pass_takes_what_fits(order: str, tokens: int, taken: int) -> None:
    trees = {name: Tree(Problem(name, ""), prompt_tokens=(4, 5, 6)) for name in "ab"}
    nodes = [trees[name].add(trees[name].root, Step((10 + place, 3), "")) for place, name in enumerate(order)]
    assert next_pass(nodes, tokens) == taken


def watched(policy: TransformersPolicy) -> list[tuple[int, int]]:
    """The branches and the bytes of every pass of running branches."""
    seen: list[tuple[int, int]] = []
    step = policy._batch.step

    def stepping() -> Any:
        seen.append((len(policy._batch), policy._batch.bytes_needed()))
        return step()

    policy._batch.step = stepping  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("limit", [None, 130])
@pytest.mark.parametrize("batch_bytes", [1, 20_000, 60_000])
def test_a_full_batch_sets_branches_back_and_gives_the_same_trees(batch_bytes: int, limit: int | None) -> None:
    def grown(**options: Any) -> tuple[list[Tree], list[tuple[int, int]], TransformersPolicy]:
        policy = make_policy(**options)
        passes = watched(policy)
        trees = [Tree(make_tree(number).problem, budget=Budget(limit)) for number in range(4)]

        async def together() -> None:
            await asyncio.gather(*(work(policy, tree, seed) for seed, tree in enumerate(trees)))

        asyncio.run(together())
        return trees, passes, policy

    expected, free, _ = grown()
    trees, bounded, policy = grown(batch_bytes=batch_bytes)
    assert list(map(structure, trees)) == list(map(structure, expected))
    assert [tree.budget for tree in trees] == [tree.budget for tree in expected]
    assert_exact(tiny_causal(), trees)
    assert max(size for _, size in free) > 60_000
    assert all(size <= batch_bytes or branches == 1 for branches, size in bounded)
    assert not policy._set_back


def test_paths_are_read_in_passes_that_fit() -> None:
    widths: list[int] = []
    results = []
    for tokens_per_pass in (1 << 16, 40):
        policy = make_policy(tokens_per_pass=tokens_per_pass)
        scorer = ProcessRewardScorer(tiny_classifier(), tokens_per_pass=tokens_per_pass)
        trees = [make_tree(number) for number in range(8)]
        for model in (policy.tree_model, scorer.tree_model):
            lay_out = model._lay_out

            def watching(wanted: Any, *others: Any, lay_out: Any = lay_out) -> Any:
                widths.append(sum(len(node.step.tokens) for node in depth_first(wanted)))
                return lay_out(wanted, *others)

            model._lay_out = watching  # type: ignore[method-assign]
        widths.clear()

        async def read(policy: Any = policy, scorer: Any = scorer, trees: Any = trees) -> None:
            children = list(dict.fromkeys(await policy.extend([tree.root for tree in trees], 2)))
            await scorer.score(children)

        asyncio.run(read())
        results.append([(structure(tree), [node.scores for node in tree.nodes]) for tree in trees])
    assert max(widths) <= 40
    for (tree, scores), (other, others) in zip(*results, strict=True):
        assert tree == other
        for mine, same in zip(scores, others, strict=True):
            assert mine == pytest.approx(same, abs=1e-5)
