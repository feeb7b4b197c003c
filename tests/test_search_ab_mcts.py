"""AB-MCTS against a naive writing of it, and its beliefs against their formulas."""

from __future__ import annotations

import asyncio
import random
import statistics

import pytest

from gradatim.search import AbMcts
from gradatim.search.selection.thompson import Thompson, draw_beta, draw_gaussian
from gradatim.tree import Node, Tree
from scripted_countdown import (
    DEEP_PROBLEM,
    FunctionScorer,
    arbitrary_scorer,
    arbitrary_value,
    new_tree,
    random_policy,
)


class Naive:
    """Sequential, recursive, with lists of all values seen; nothing lies in the tree."""

    def __init__(self, tree: Tree, patience: int) -> None:
        self.tree, self.patience, self.policy = tree, patience, random_policy()
        self.children: dict[Node, list[Node]] = {}
        self.vain: dict[Node, int] = {}

    def below(self, node: Node) -> list[Node]:
        return [each for child in self.children.get(node, []) for each in (child, *self.below(child))]

    def vain_below(self, node: Node) -> int:
        return self.vain.get(node, 0) + sum(self.vain_below(child) for child in node.children)

    def can_widen(self, node: Node) -> bool:
        return node.open and (node not in self.children or self.vain.get(node, 0) < self.patience)

    def exhausted(self, node: Node) -> bool:
        return not self.can_widen(node) and all(self.exhausted(child) for child in self.children.get(node, []))

    def draw(self, chance: random.Random, nodes: list[Node]) -> float:
        values = [arbitrary_value(node) for node in nodes]
        return chance.betavariate(0.5 + sum(values), 0.5 + sum(1 - value for value in values))

    def pick(self, node: Node) -> Node:
        if node not in self.children:
            return node
        visits = len(self.below(node)) + (not node.is_root)
        chance = random.Random(f"thompson {node.key} {visits} {self.vain_below(node)}")
        children = self.children[node]
        wider = self.draw(chance, children)
        deeper = self.draw(chance, [each for child in children for each in self.below(child)])
        left = [child for child in children if not self.exhausted(child)]
        if self.can_widen(node) and (wider > deeper or not left):
            return node
        draws = [self.draw(chance, [child, *self.below(child)]) for child in left]
        return self.pick(left[draws.index(max(draws))])

    def run(self, simulations: int) -> None:
        for _ in range(simulations):
            if self.exhausted(self.tree.root):
                return
            node = self.pick(self.tree.root)
            known = self.children.setdefault(node, [])
            (child,) = asyncio.run(self.policy.extend([node], 1))
            if child in known:
                self.vain[node] = self.vain.get(node, 0) + 1
            else:
                known.append(child)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_the_paper_says(seed: int) -> None:
    ours, naive = new_tree(DEEP_PROBLEM, seed=seed), Naive(new_tree(DEEP_PROBLEM, seed=seed), patience=3)
    asyncio.run(AbMcts(simulations=60, wave=1)(ours, random_policy(), arbitrary_scorer()))
    naive.run(60)
    assert [node.text for node in ours.nodes] == [node.text for node in naive.tree.nodes]
    assert [node.draws for node in ours.nodes] == [node.draws for node in naive.tree.nodes]
    assert any(node.draws > 1 for node in ours.nodes[1:]), "wider, below the root too"
    assert max(node.depth for node in ours.nodes) == 3, "deeper"


@pytest.mark.parametrize("wave", [1, 4])
def test_a_node_grows_no_wider_once_nothing_new_comes(wave: int) -> None:
    tree = new_tree()
    search = AbMcts(simulations=10**6, wave=wave, selection=Thompson(patience=2))
    asyncio.run(search(tree, random_policy(), arbitrary_scorer()))
    for node in tree.nodes:
        if node.open:
            assert node.draws == len(node.children) + 2
    assert tree.root.counts["ab_mcts_in_vain"] == 2 * sum(node.open for node in tree.nodes)


def test_it_goes_wider_where_values_differ_by_the_first_step_and_deeper_where_they_grow() -> None:
    def breadth(value: FunctionScorer) -> float:
        widths = []
        for seed in range(8):
            tree = new_tree(DEEP_PROBLEM, seed=seed)
            asyncio.run(AbMcts(simulations=16, wave=1)(tree, random_policy(), value))
            widths.append(len(tree.root.children))
        return statistics.fmean(widths)

    shallow = breadth(FunctionScorer(lambda node: 0.9 if node.depth == 1 else 0.1))
    deep = breadth(FunctionScorer(lambda node: 0.1 if node.depth == 1 else 0.9))
    assert shallow > deep + 2


def test_draws_are_from_the_posteriors() -> None:
    chance = random.Random(0)
    values = [0.2, 0.9, 0.7]
    beta = [draw_beta(chance, values) for _ in range(4000)]
    assert statistics.fmean(beta) == pytest.approx(2.3 / 4, abs=0.01)
    assert statistics.variance(beta) == pytest.approx(2.3 * 1.7 / (4**2 * 5), rel=0.1)
    gaussian = [draw_gaussian(chance, values) for _ in range(4000)]
    # kappa = nu = 4, mean = 1.8 / 4; nu * variance = 0.1 + squares about the mean + 3 * 0.6**2 / 4
    scale = 0.1 + (0.16 + 0.09 + 0.01) + 0.27
    assert statistics.fmean(gaussian) == pytest.approx(0.45, abs=0.02)
    assert statistics.variance(gaussian) == pytest.approx(scale / (4 - 2) / 4, rel=0.2)
    assert 0.4 < statistics.fmean(draw_beta(chance, []) for _ in range(500)) < 0.6
