"""What all tree searches promise, whatever they select by: budgets, taking up again, early ends, and reasons."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.part import make
from gradatim.policies.base import Sampling
from gradatim.search import Pool
from gradatim.search.decisions import DECISION
from gradatim.search.tree_search import TreeSearch
from gradatim.tree import Node, Tree
from scripted_countdown import (
    DEEP_PROBLEM,
    PROBLEM,
    TASK,
    FunctionScorer,
    ListingPolicy,
    arbitrary_scorer,
    arbitrary_value,
    new_tree,
    oracle_scorer,
    random_moves,
    random_policy,
)

SEARCHES = {
    "uct": {"name": "mcts", "selection": "uct"},
    "puct": {"name": "mcts", "selection": "puct", "backup": "max"},
    "best_first": {"name": "best_first", "selection": {"name": "best_first", "solutions": None}},
    "a_star": {"name": "a_star", "selection": {"name": "a_star", "solutions": None}},
    "a_star by likelihood": {
        "name": "a_star",
        "selection": {"name": "a_star", "cost": "likelihood", "total": "sum", "future": "log", "solutions": 3},
    },
    "ab_mcts": {"name": "ab_mcts"},
    "ab_mcts, gaussian": {"name": "ab_mcts", "branch": 2, "selection": {"name": "thompson", "posterior": "gaussian"}},
}


def search(name: str, **options: object) -> TreeSearch:
    made = make("search", {**SEARCHES[name], **options})
    assert isinstance(made, TreeSearch)
    return made


def expanded(tree: Tree) -> list[Node]:
    return [node for node in tree.nodes if node.children]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_goes_on_where_another_stopped(name: str) -> None:
    at_once, in_parts = new_tree(DEEP_PROBLEM), new_tree(DEEP_PROBLEM)
    asyncio.run(search(name, simulations=24, wave=1)(at_once, random_policy(), arbitrary_scorer()))
    for part in (5, 1, 18):
        in_parts = Tree.from_json(in_parts.to_json())
        asyncio.run(search(name, simulations=part, wave=1)(in_parts, random_policy(), arbitrary_scorer()))
    assert in_parts.to_json()["nodes"] == at_once.to_json()["nodes"]


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(0, 2000),
    seed=st.integers(0, 3),
    name=st.sampled_from(sorted(SEARCHES)),
    wave=st.integers(1, 5),
)
def test_no_budget_is_exceeded_and_the_bookkeeping_survives_its_end(
    limit: int, seed: int, name: str, wave: int
) -> None:
    tree = new_tree(DEEP_PROBLEM if seed % 2 else PROBLEM, seed=seed, limit=limit)
    made = search(name, simulations=200, wave=wave)
    asyncio.run(made(tree, random_policy(0.1), arbitrary_scorer()))
    assert tree.budget.total <= limit
    assert tree.budget.written("policy") == sum(len(node.step.tokens) * node.multiplicity for node in tree.nodes[1:])
    for node in tree.nodes:
        below = sum(child.counts.get(made.key, 0) for child in node.children)
        assert node.counts.get(made.key, 0) == below + (made.key in node.counts and not node.is_root)
        if made.key in node.counts and not node.is_root and not node.children:
            assert node.scores[made.key] == (0.0 if node.step.end.cuts_off else arbitrary_value(node))


@pytest.mark.parametrize("name", SEARCHES)
def test_a_tree_that_is_fully_explored_ends_the_search(name: str) -> None:
    tree = new_tree()
    options = {"simulations": 10**6, "branch": 1000, "wave": 7}
    if name == "a_star by likelihood":
        options |= {"selection": {"name": "a_star", "future": "log", "solutions": None}}
    policy = ListingPolicy(random_moves())
    asyncio.run(search(name, **options)(tree, policy, arbitrary_scorer()))
    assert all(node.children for node in tree.nodes if node.open)
    size = len(tree)
    asyncio.run(search(name, **options)(tree, policy, arbitrary_scorer()))
    assert len(tree) == size


@pytest.mark.parametrize("name", SEARCHES)
def test_a_good_enough_solution_ends_the_search(name: str) -> None:
    tree = new_tree()
    asyncio.run(search(name, simulations=1000, stop_at=1.0, wave=1)(tree, random_policy(), oracle_scorer()))
    right = [leaf for leaf in tree.solutions() if leaf.scores["oracle"] == 1.0]
    assert right
    assert all(leaf.parent is right[0].parent for leaf in right), "found in the last expansion"
    assert all(TASK.reachable(tree.problem, leaf.text) for leaf in right)
    size = len(tree)
    asyncio.run(search(name, stop_at=1.0)(tree, random_policy(), oracle_scorer()))
    assert len(tree) == size, "a search that is taken up again knows that it has ended"


@pytest.mark.parametrize("name", SEARCHES)
def test_every_step_says_what_became_of_it(name: str) -> None:
    tree = new_tree(DEEP_PROBLEM)
    made = search(name, simulations=15)
    asyncio.run(made(tree, random_policy(), arbitrary_scorer(), sampling=Sampling(max_steps=2)))
    for node in tree.nodes[1:]:
        if made.key not in node.counts:
            continue
        told = node.notes[DECISION]["decision"], node.notes[DECISION]["why"]
        if node.step.end.cuts_off:
            assert told == ("dropped", "cut off")
        elif node.finished:
            assert told == ("dropped", "finished")
        elif node.children:
            assert told[0] == "expanded"
            assert any(character.isdigit() for character in told[1]), told
        else:
            assert told[0] == "pruned"
            assert told[1].startswith("not expanded before ")


@pytest.mark.parametrize("name", SEARCHES)
def test_a_scorer_that_scores_nothing_ends_the_search(name: str) -> None:
    class Silent:
        name = "silent"

        async def score(self, nodes: Sequence[Node]) -> None:
            """It cannot say."""

    tree = new_tree()
    made = search(name, simulations=10**6)
    asyncio.run(made(tree, random_policy(), Silent()))
    assert not any(made.key in node.counts for node in tree.nodes)
    assert len(expanded(tree)) == 1


@pytest.mark.parametrize("name", SEARCHES)
def test_steps_that_are_always_the_same_do_not_keep_a_search_running(name: str) -> None:
    tree = new_tree(DEEP_PROBLEM)
    greedy = Sampling(temperature=0)
    asyncio.run(search(name, simulations=10**6)(tree, random_policy(), arbitrary_scorer(), sampling=greedy))
    assert [len(node.children) for node in tree.nodes] == [1, 1, 1, 0]


def test_a_node_is_worth_the_best_that_was_found_below_it() -> None:
    tree = new_tree(DEEP_PROBLEM)
    asyncio.run(search("uct", simulations=20, backup="max")(tree, random_policy(), arbitrary_scorer()))
    for node in tree.nodes:
        own = [] if node.is_root else [arbitrary_value(node)]
        assert node.scores["mcts"] == max(own + [child.scores["mcts"] for child in node.children])


def test_values_may_be_of_whole_paths() -> None:
    tree = new_tree(DEEP_PROBLEM)
    asyncio.run(search("best_first", simulations=6, aggregate="min")(tree, random_policy(), arbitrary_scorer()))
    for node in tree.nodes[1:]:
        if not node.children:
            assert node.scores["best_first"] == min(arbitrary_value(step) for step in node.path()[1:])


@pytest.mark.parametrize("name", SEARCHES)
def test_steps_that_a_policy_draws_elsewhere_are_valued_where_they_are(name: str) -> None:
    tree = new_tree(DEEP_PROBLEM)
    made = search(name, simulations=20)
    asyncio.run(Pool(search=made, rounds=5)(tree, random_policy(), arbitrary_scorer()))
    assert all(made.key in node.counts for node in tree.nodes[1:])
    for node in tree.nodes:
        below = sum(child.counts[made.key] for child in node.children)
        assert node.counts[made.key] == below + (not node.is_root)


def test_answers_are_known_where_the_task_can_tell_them() -> None:
    tree = new_tree()
    made = search("best_first", simulations=30, choose_by="majority")
    asyncio.run(made(tree, random_policy(), arbitrary_scorer(), answer=TASK.answer))
    assert tree.solutions()
    assert all(leaf.answered for leaf in tree.solutions())
    assert made.choose(tree, "arbitrary") is not None


def test_what_cannot_be_searched_is_refused() -> None:
    for name in SEARCHES:
        with pytest.raises(GradatimError, match="needs a scorer to guide it"):
            asyncio.run(search(name)(new_tree(), random_policy()))
    with pytest.raises(GradatimError, match="'uct' is no AStar"):
        make("search", {"name": "a_star", "selection": "uct"})
    with pytest.raises(GradatimError, match="there is no selection 'ucb'; did you mean 'uct'"):
        make("search", {"name": "mcts", "selection": "ucb"})
    with pytest.raises(GradatimError, match=r"a value of 2\.0 is no probability; use posterior: gaussian"):
        asyncio.run(search("ab_mcts")(new_tree(), random_policy(), FunctionScorer(lambda node: 2.0)))
    with pytest.raises(GradatimError, match=r"a value of -1\.0 has no logarithm"):
        asyncio.run(search("a_star by likelihood")(new_tree(), random_policy(), FunctionScorer(lambda node: -1.0)))
    with pytest.raises(GradatimError, match="A\\* cannot count by likelihood; use cost: score"):
        asyncio.run(search("a_star by likelihood")(new_tree(), ListingPolicy(random_moves()), arbitrary_scorer()))
