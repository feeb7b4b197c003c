"""Variable-granularity search between its two ends, beam search and best-of-n, and the numbers of one round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gradatim.errors import GradatimError
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.scorers.base import Scorer
from gradatim.search import Beam, IndependentSampling, VgSearch
from gradatim.search.decisions import DECISION
from gradatim.search.ranking import best
from gradatim.tasks.countdown import Countdown
from gradatim.tree import Tree
from scripted_countdown import (
    DEEP_PROBLEM,
    FunctionScorer,
    arbitrary_scorer,
    arbitrary_value,
    new_tree,
    problems,
    random_policy,
)

SAMPLING = Sampling(max_step_tokens=24, max_steps=4)
POLICIES: dict[str, Callable[[], Policy]] = {
    "scripted": lambda: random_policy(noise=0.2),
    "shipped": lambda: TransformersPolicy.from_pretrained("shipped:countdown", device="cpu"),
}


def grown(search: Any, policy: Policy, limit: int | None, scorer: Scorer | None = None) -> list[dict[str, Any]]:
    """Trees of three problems, but for what was decided in them."""
    grown = []
    for problem in Countdown().problems("test", 3) if isinstance(policy, TransformersPolicy) else problems(3):
        tree = new_tree(problem, limit=limit)
        asyncio.run(search(tree, policy, scorer or arbitrary_scorer(), sampling=SAMPLING))
        for node in tree.nodes:
            node.notes.clear()
        grown.append(tree.to_json())
    return grown


async def plain_beam(tree: Tree, policy: Policy, scorer: Scorer, *, sampling: Sampling, width: int = 3) -> None:
    """Beam search with nothing else in it."""
    frontier = [tree.root]
    while frontier and not tree.budget.spent:
        children = list(dict.fromkeys(await policy.extend(frontier, width * 3 // len(frontier), sampling=sampling)))
        await scorer.score([child for child in children if child.open or child.finished])
        frontier = best([child for child in children if child.open], width, scorer.name)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("limit", [None, 150])
def test_one_step_is_beam_search_and_endless_ones_are_best_of_n_node_for_node(name: str, limit: int | None) -> None:
    policy = POLICIES[name]()
    beam = grown(plain_beam, policy, limit)
    assert grown(VgSearch(width=3, branch=3, granularity=1), policy, limit) == beam
    assert grown(Beam(width=3, branch=3), policy, limit) == beam
    samples = grown(IndependentSampling(n=12), policy, limit)
    assert grown(VgSearch(width=3, branch=4, granularity=None), policy, limit) == samples
    assert samples != beam


def test_whole_paths_are_scored_where_the_aggregate_asks_for_it() -> None:
    policy = random_policy()
    samples = grown(IndependentSampling(n=12, score="steps", aggregate="min"), policy, None)
    assert grown(VgSearch(width=4, branch=3, granularity=None, aggregate="min"), policy, None) == samples
    tree = new_tree(DEEP_PROBLEM)
    asyncio.run(VgSearch(width=2, branch=2, granularity=2, aggregate="mean")(tree, policy, arbitrary_scorer()))
    assert all("arbitrary" in node.scores for node in tree.nodes[1:])


def test_what_is_kept_goes_on_alone_and_branches_before_it_is_verified() -> None:
    """Of three steps: the first two are drawn ``width * branch`` times, the third is one draw below each kept step."""
    tree = new_tree(DEEP_PROBLEM)
    scorer = arbitrary_scorer()
    asyncio.run(VgSearch(width=2, branch=3, granularity=(1, 2))(tree, random_policy(), scorer))
    assert tree.root.draws == 6
    firsts = sorted((node for node in tree.nodes if node.depth == 1), key=arbitrary_value, reverse=True)
    assert [node.draws for node in firsts[:2]] == [1, 1]
    assert {node.draws for node in firsts[2:]} <= {0}
    seconds = [node for node in tree.nodes if node.depth == 2]
    assert [node.draws for node in seconds] == [3, 3]
    assert {node.depth for node in tree.nodes if node.scores} == {1, 3}
    assert all(node.notes[DECISION] == {"decision": "expanded", "why": "goes on unverified"} for node in seconds)


@pytest.mark.parametrize(("spread", "verified"), [(0.0, {1, 3}), (1.0, {1, 2, 3})])
def test_verification_is_put_off_where_scores_do_not_differ(spread: float, verified: set[int]) -> None:
    """Scores that are all alike double the next stretch; others leave it as it is."""
    tree = new_tree(DEEP_PROBLEM)
    scorer = FunctionScorer(lambda node: spread * arbitrary_value(node), "arbitrary")
    asyncio.run(VgSearch(width=2, branch=3, granularity=1, widen_below=0.001)(tree, random_policy(), scorer))
    assert {node.depth for node in tree.nodes if node.scores} == verified


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(GradatimError, match="variable-granularity search needs a scorer to guide it"):
        asyncio.run(VgSearch()(new_tree(), random_policy()))
    for options in ({"granularity": 0}, {"granularity": (1, 0)}, {"granularity": ()}, {"widen_below": -1}):
        with pytest.raises(GradatimError, match=f"^VgSearch: {next(iter(options))}"):
            VgSearch(**options)  # type: ignore[arg-type]
