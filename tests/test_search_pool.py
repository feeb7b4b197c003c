"""Pools of old prefixes: what is drawn, how often, and that the search still comes to its end."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from gradatim.errors import GradatimError
from gradatim.search import Beam, Dvts, IndependentSampling, Momentum
from gradatim.search.around import PolicyAround
from gradatim.search.decisions import DECISION
from gradatim.search.pool import Pool, _Prefixes
from gradatim.tree import Node, Step
from scripted_countdown import DEEP_PROBLEM, arbitrary_scorer, new_tree, problems, random_policy


class Watched(PolicyAround):
    """Remembers what it was asked to extend, and what could have been extended then."""

    def __init__(self) -> None:
        super().__init__(random_policy())
        self.asked: list[tuple[list[Node], list[Node]]] = []

    async def extend(self, nodes: Sequence[Node], n: Any = 1, **options: Any) -> list[Node]:
        tree = nodes[0].tree
        self.asked.append((list(nodes), [node for node in tree.nodes if node.open and node.scores]))
        return await super().extend(nodes, n, **options)


def test_without_chance_the_best_prefixes_ever_scored_are_extended() -> None:
    returned = 0
    for seed in range(6):
        tree, policy = new_tree(DEEP_PROBLEM, seed=seed), Watched()
        search = Pool(search=Beam(width=2, branch=3), temperature=1e-9, uses=1, rounds=100)
        asyncio.run(search(tree, policy, arbitrary_scorer()))
        used: set[Node] = {tree.root}
        for asked, scored in policy.asked:
            left = sorted((node for node in scored if node not in used), key=lambda node: -node.scores["arbitrary"])
            assert asked == ([tree.root] if not scored else left[: len(asked)])
            returned += sum(node.depth < max(each.depth for each in scored or [tree.root]) for node in asked)
            used |= set(asked)
    assert returned, "prefixes that a beam would have pruned for good came back"


def test_prefixes_are_drawn_in_proportion_to_the_softmax_of_their_scores() -> None:
    tree = new_tree()
    nodes = [tree.add(tree.root, Step((token,), f"{token}\n")) for token in range(1, 4)]
    found: Counter[Node] = Counter()
    pairs: Counter[tuple[Node, ...]] = Counter()
    for seed in range(4000):
        pool = _Prefixes()
        pool.scores = dict(zip(nodes, (0.1, 0.3, 0.2), strict=True))
        taken = pool.draw(2, 0.1, 1, random.Random(seed))
        found[taken[0]] += 1
        pairs[tuple(taken)] += 1
    weights = [math.exp(score / 0.1) for score in (0.1, 0.3, 0.2)]
    for node, weight in zip(nodes, weights, strict=True):
        assert found[node] / 4000 == pytest.approx(weight / sum(weights), abs=0.025)
    second = weights[1] / sum(weights) * weights[2] / (weights[0] + weights[2])  # then one of those that are left
    assert pairs[nodes[1], nodes[2]] / 4000 == pytest.approx(second, abs=0.025)


@pytest.mark.parametrize("uses", [1, 2])
def test_a_prefix_that_is_used_up_is_not_drawn_again(uses: int) -> None:
    tree, policy = new_tree(problems(1)[0]), Watched()
    asyncio.run(Pool(search=Beam(width=2, branch=2), uses=uses, rounds=1000)(tree, policy, arbitrary_scorer()))
    times = Counter(node for asked, _ in policy.asked for node in asked)
    del times[tree.root]
    assert max(times.values()) <= uses
    assert all("from a pool of" in node.notes[DECISION]["why"] for node in times)


def test_after_its_rounds_it_is_the_inner_search() -> None:
    policy = Watched()
    tree, plain = new_tree(seed=2), new_tree(seed=2)
    asyncio.run(Pool(search=Beam(width=2, branch=2), rounds=1, temperature=1e-9)(tree, policy, arbitrary_scorer()))
    asyncio.run(Beam(width=2, branch=2)(plain, random_policy(), arbitrary_scorer()))
    # The best two of the first round are what a beam extends too.
    assert [node.text for node in tree.nodes] == [node.text for node in plain.nodes]


def test_whole_solutions_are_continued_from_old_prefixes_too() -> None:
    tree = new_tree()
    search = Pool(search=IndependentSampling(n=12, wave=3, score="steps"))
    asyncio.run(search(tree, random_policy(), arbitrary_scorer()))
    assert tree.root.draws == 3
    assert sum(node.draws for node in tree.nodes if node.depth == 1) > 3
    assert sum(leaf.multiplicity for leaf in tree.solutions()) == 12


def test_bad_options_are_refused() -> None:
    for options in ({"temperature": 0}, {"uses": 0}, {"rounds": 0}, {"search": {"name": "nothing"}}):
        with pytest.raises(GradatimError, match=f"^Pool: {next(iter(options))}"):
            Pool(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(6))
def test_a_gate_within_a_pool_looks_at_what_the_pool_drew_instead(seed: int) -> None:
    for inner in (Beam(width=4, branch=3), Dvts()):
        tree = new_tree(DEEP_PROBLEM, seed=seed)
        asyncio.run(Pool(search=Momentum(search=inner))(tree, random_policy(noise=0.1), arbitrary_scorer()))
        assert tree.solutions()
