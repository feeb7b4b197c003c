"""Best-first and A* search against a plain priority queue, and A* against all paths of small trees."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from gradatim.budget import Account
from gradatim.part import make
from gradatim.policies.base import Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep, step_tokens
from gradatim.search import AStarSearch, BestFirstSearch
from gradatim.search.selection.a_star import AStar
from gradatim.search.tree_state import TreeState
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from scripted_countdown import DEEP_PROBLEM, FunctionScorer, arbitrary_scorer, arbitrary_value, new_tree, random_policy


def in_order_of_a_queue(tree: Tree, expansions: int, branch: int) -> list[str]:
    """Best-first search as it is written in textbooks; returns the solutions so far that were expanded, and the one
    that was found."""
    policy, count = random_policy(), itertools.count()
    queue: list[tuple[float, int, Node]] = [(-math.inf, next(count), tree.root)]
    order = []
    while queue and len(order) <= expansions:
        _, _, node = heapq.heappop(queue)
        order.append(node.text)
        if node.finished or len(order) > expansions:
            break
        for child in dict.fromkeys(asyncio.run(policy.extend([node], branch))):
            heapq.heappush(queue, (-arbitrary_value(child), next(count), child))
    return order


@pytest.mark.parametrize("seed", range(6))
def test_best_first_search_is_a_priority_queue(seed: int) -> None:
    theirs, ours = new_tree(DEEP_PROBLEM, seed=seed), new_tree(DEEP_PROBLEM, seed=seed)
    order = in_order_of_a_queue(theirs, 40, 3)
    asyncio.run(BestFirstSearch(simulations=40, branch=3)(ours, random_policy(), arbitrary_scorer()))
    assert [node.text for node in ours.nodes] == [node.text for node in theirs.nodes]
    assert {node.text for node in ours.nodes if node.children} == set(order[:-1])
    chosen = BestFirstSearch().choose(ours, "arbitrary")
    assert chosen is not None
    assert chosen.text == order[-1]


def test_best_first_search_goes_on_until_enough_solutions_rank_above_the_rest() -> None:
    for solutions in (1, 2, 4):
        tree = new_tree(DEEP_PROBLEM)
        made = make(
            "search", {"best_first": {"simulations": 1000, "selection": {"best_first": {"solutions": solutions}}}}
        )
        asyncio.run(made(tree, random_policy(), arbitrary_scorer()))
        rest = max(arbitrary_value(node) for node in tree.nodes[1:] if node.open and not node.children)
        assert sum(arbitrary_value(leaf) > rest for leaf in tree.solutions()) >= solutions


# Trees that are known whole: below every step two to four others of unequal probability, four deep.

DEPTH = 4


def unequal_steps(node: Node) -> list[ScriptedStep]:
    chance = random.Random(f"{node.tree.problem.id} {node.text}")
    end = EndReason.END_OF_TEXT if node.depth + 1 == DEPTH else EndReason.BOUNDARY
    weights = [chance.random() + 0.05 for _ in range(chance.randint(2, 4))]
    return [
        ScriptedStep(f"{name}\n", weight / sum(weights), end) for name, weight in zip("abcd", weights, strict=False)
    ]


def is_right(node: Node) -> bool:
    return random.Random(f"right? {node.tree.problem.id} {node.text}").random() < 0.3


class AllSteps(ScriptedPolicy):
    """Proposes all possible steps, once each, with what they are likely."""

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        steps: int | None = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
    ) -> list[Node]:
        children = []
        for node in nodes:
            for step in self.distribution(node):
                tokens = step_tokens(step)
                shares = (math.log(step.probability), *(0.0 for _ in tokens[1:]))
                children.append(node.tree.add(node, Step(tokens, step.text, shares, step.end)))
        return children


def whole_tree(problem: Problem) -> Tree:
    tree, policy = Tree(problem), AllSteps(unequal_steps)
    for node in iter_open(tree):
        asyncio.run(policy.extend([node]))
    return tree


def iter_open(tree: Tree) -> Iterator[Node]:
    place = 0
    while place < len(tree.nodes):
        if tree.nodes[place].open:
            yield tree.nodes[place]
        place += 1


def cost(node: Node) -> float:
    return -math.fsum(step.step.log_probabilities[0] for step in node.path()[1:])


def best_completions(tree: Tree) -> dict[str, float]:
    """For each partial solution, the probability of its likeliest right continuation; 0 without one."""
    best: dict[Node, float] = {}
    for node in reversed(tree.nodes):
        likeliest = [math.exp(child.step.log_probabilities[0]) * best[child] for child in node.children]
        best[node] = max(likeliest, default=0.0) if node.open else float(is_right(node))
    return {node.text: value for node, value in best.items()}


@pytest.mark.parametrize("optimism", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("number", range(6))
def test_a_star_finds_the_likeliest_right_solution_and_expands_nothing_that_costs_more(
    number: int, optimism: float
) -> None:
    """With a value that never says too little of what can still be had: exact, optimistic, and blind."""
    problem = Problem(str(number), "?")
    whole = whole_tree(problem)
    exact = best_completions(whole)
    optimum = min(cost(leaf) for leaf in whole.solutions() if is_right(leaf))

    def value(node: Node) -> float:
        more = random.Random(node.text).random() * optimism if optimism < 1 else 1.0
        return min(1.0, exact[node.text] + more) if node.open else float(is_right(node))

    def least(node: Node) -> float:
        return cost(node) - (math.log(value(node)) if value(node) else -math.inf)

    search = AStarSearch(simulations=10**6, selection=AStar(cost="likelihood", total="sum", future="log"))
    tree = Tree(problem)
    asyncio.run(search(tree, AllSteps(unequal_steps), FunctionScorer(value)))
    chosen = search.choose(tree, "function")
    assert chosen is not None
    assert is_right(chosen)
    assert cost(chosen) == pytest.approx(optimum)
    expanded = {node.text for node in tree.nodes[1:] if node.children}
    assert all(least(node) <= optimum + 1e-9 for node in tree.nodes[1:] if node.children)
    inner = [node for node in whole.nodes[1:] if node.open]
    must = {node.text for node in inner if all(least(step) < optimum - 1e-9 for step in node.path()[1:])}
    assert must <= expanded, "what may cost less was looked at"
    if optimism == 0.0:
        assert len(expanded) == DEPTH - 1, "with the exact value it goes straight there"


@pytest.mark.parametrize(
    ("options", "costs"),
    [
        # scores 0.9, 0.6, 0.8; value 0.8; log-probabilities -1, -2, -0.5
        ({}, (0.1 + 0.4 + 0.2) / 3 + 0.2),
        ({"total": "sum"}, 0.7 + 0.2),
        ({"total": "max"}, 0.4 + 0.2),
        ({"total": "last", "weight": 2.0}, 0.2 + 0.4),
        ({"cost": "likelihood", "total": "sum", "future": "log"}, 3.5 - math.log(0.8)),
        ({"cost": "likelihood", "weight": 0.0}, 3.5 / 3),
    ],
)
def test_costs_by_hand(options: dict[str, Any], costs: float) -> None:
    tree = new_tree()
    node = tree.root
    for token, (score, logarithm) in enumerate([(0.9, -1.0), (0.6, -2.0), (0.8, -0.5)]):
        node = tree.add(node, Step((token,), f"{token}\n", (logarithm,)))
        node.scores["function"] = score
    node.scores["a_star"], node.counts["a_star"] = 0.8, 1
    state = TreeState(tree, "a_star", "function")
    assert AStar(**options).priority(node, state) == pytest.approx(-costs)


def test_a_solution_that_is_worth_nothing_is_no_goal() -> None:
    tree = new_tree(DEEP_PROBLEM)
    search = AStarSearch(simulations=4, selection=AStar(future="log"))
    asyncio.run(search(tree, random_policy(), FunctionScorer(lambda node: 0.0)))
    assert len([node for node in tree.nodes if node.children]) == 1
    assert tree.nodes[1].notes["search"]["why"] == "not expanded before nothing can come of it"
