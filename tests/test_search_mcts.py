"""Monte-Carlo tree search: formulas by hand, bookkeeping to the visit, and the truth on exact trees."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.policies.scripted import ScriptedPolicy
from gradatim.scorers.rollouts import RolloutScorer
from gradatim.search import Mcts, best_of_n
from gradatim.search.selection.base import Selection
from gradatim.search.selection.puct import Puct, priors, puct
from gradatim.search.selection.uct import Uct, uct
from gradatim.search.tree_state import TreeState
from gradatim.tasks.base import grade
from gradatim.tree import EndReason, Node, Step, Tree
from scripted_countdown import (
    DEEP_PROBLEM,
    PROBLEM,
    TASK,
    ListingPolicy,
    arbitrary_scorer,
    new_tree,
    oracle_scorer,
    oracle_value,
    problems,
    random_moves,
    random_policy,
)

GOLDEN = Path(__file__).parent / "golden"
RULES: list[Selection] = [Uct(), Puct(), Puct(prior="uniform")]


def test_uct_and_puct_by_hand() -> None:
    assert uct(0.5, 4, 16, 2.0) == pytest.approx(0.5 + 2.0 * math.sqrt(math.log(16) / 4))
    assert uct(0.5, 4, 16, 2.0) == pytest.approx(2.1651092)
    assert uct(0.0, 0, 3, 1.0) == math.inf
    assert puct(0.5, 0.25, 3, 16, 2.0) == pytest.approx(0.5 + 2.0 * 0.25 * 4 / 4)
    assert puct(0.0, 0.25, 0, 16, 1.0) == pytest.approx(1.0)


def test_priors_are_a_softmax_of_length_normalised_log_probabilities() -> None:
    tree = new_tree()
    long = tree.add(tree.root, Step((1, 2), "a\n", (math.log(0.5), math.log(0.5))))
    short = tree.add(tree.root, Step((3,), "b\n", (math.log(0.25),)))
    assert priors([long, short]) == pytest.approx([2 / 3, 1 / 3])
    unknown = tree.add(tree.root, Step((4,), "c\n"))
    assert priors([long, short, unknown]) == [1 / 3] * 3
    assert priors([]) == []


def hand_made_search() -> tuple[TreeState, Tree, list[Node]]:
    """Three children with values and visits (0.9, 9), (0.5, 4) and (0.6, 3); priors 0.2, 0.3 and 0.5."""
    tree = new_tree()
    children = []
    for token, (value, visits, probability) in enumerate(((0.9, 9, 0.2), (0.5, 4, 0.3), (0.6, 3, 0.5))):
        child = tree.add(tree.root, Step((token,), f"{token}\n", (math.log(probability),)))
        child.scores["mcts"], child.counts["mcts"] = value, visits
        children.append(child)
    tree.root.scores["mcts"], tree.root.counts["mcts"] = (8.1 + 2.0 + 1.8) / 16, 16
    return TreeState(tree, "mcts", "arbitrary"), tree, children


def select_wave(rule: Selection, state: TreeState, count: int) -> list[Node]:
    return list(Mcts(selection=rule)._select_wave(state, count)[0])


@pytest.mark.parametrize(
    ("rule", "place", "why"),
    [
        # 0.9 + sqrt(2.77/9) = 1.455, 0.5 + sqrt(2.77/4) = 1.333, 0.6 + sqrt(2.77/3) = 1.561
        (Uct(), 2, "UCT 1.56 after 3 visits"),
        # 0.9 + 0.2*4/10 = 0.98, 0.5 + 0.3*4/5 = 0.74, 0.6 + 0.5*4/4 = 1.1
        (Puct(), 2, "PUCT 1.10 after 3 visits"),
        # 0.9 + 4/30 = 1.033, 0.5 + 4/15 = 0.767, 0.6 + 4/12 = 0.933
        (Puct(prior="uniform"), 0, "PUCT 1.03 after 9 visits"),
    ],
)
def test_selection_by_hand(rule: Selection, place: int, why: str) -> None:
    state, _, children = hand_made_search()
    assert rule.select(state) == (children[place], why)


def test_a_virtual_loss_counts_as_a_visit_of_value_zero() -> None:
    state, tree, children = hand_made_search()
    assert state.value(children[0]) == pytest.approx(8.1 / 9)
    state.virtual_losses.update(children[0].path())
    assert (state.visits(tree.root), state.visits(children[0])) == (17, 10)
    assert state.value(children[0]) == pytest.approx(8.1 / 10)


@pytest.mark.parametrize("rule", RULES)
def test_a_wave_selects_different_nodes_and_its_virtual_losses_are_undone(rule: Selection) -> None:
    state, tree, children = hand_made_search()
    statistics = [(dict(node.scores), dict(node.counts)) for node in tree.nodes]
    wave = select_wave(rule, state, 10)
    assert sorted(node.id for node in wave) == [child.id for child in children]
    assert state.virtual_losses[tree.root] == 3
    assert select_wave(rule, state, 1) == []
    state.release(wave)
    assert not state.virtual_losses
    assert not state.blocked
    assert not state.under_way
    assert [(node.scores, node.counts) for node in tree.nodes] == statistics
    assert select_wave(rule, state, 10) == wave


@pytest.mark.parametrize("recorded", json.loads((GOLDEN / "mcts_trees.json").read_text()))
def test_trees_are_those_on_record(recorded: dict[str, Any]) -> None:
    """Node for node as they were when UCT and PUCT were the only rules."""
    named = {"uct": Uct(exploration=0.5), "puct": Puct(exploration=0.5)}
    rule = named.get(recorded["rule"], Puct(exploration=0.5, prior="uniform"))
    tree = new_tree(DEEP_PROBLEM, seed=recorded["wave"])
    search = Mcts(simulations=9, branch=3, wave=recorded["wave"], selection=rule)
    asyncio.run(search(tree, random_policy(0.2), arbitrary_scorer()))
    assert [
        [
            None if node.parent is None else node.parent.id,
            "" if node.is_root else node.step.text,
            node.counts.get("mcts"),
            node.scores.get("mcts"),
        ]
        for node in tree.nodes
    ] == recorded["nodes"]


class FailingScorer:
    name = "failing"

    async def score(self, nodes: object) -> None:
        raise GradatimError("no")


def test_a_failed_wave_leaves_no_trace_and_the_search_can_go_on() -> None:
    tree = new_tree()
    asyncio.run(Mcts(simulations=3)(tree, random_policy(), arbitrary_scorer()))
    values = {node: (node.scores["mcts"], node.counts["mcts"]) for node in tree.nodes if "mcts" in node.scores}
    with pytest.raises(GradatimError, match="no"):
        asyncio.run(Mcts(simulations=3)(tree, random_policy(), FailingScorer()))
    assert values == {node: (node.scores["mcts"], node.counts["mcts"]) for node in tree.nodes if "mcts" in node.scores}
    visits = tree.root.counts["mcts"]
    asyncio.run(Mcts(simulations=3)(tree, random_policy(), arbitrary_scorer()))
    assert tree.root.counts["mcts"] > visits
    check_visits(tree)


def check_visits(tree: Tree) -> None:
    """Every node has one visit of its own and its children's, and the mean of all their values."""
    for node in tree.nodes:
        below = sum(child.counts.get("mcts", 0) for child in node.children)
        own = 0 if node.is_root else 1
        if "mcts" not in node.counts:
            assert below == 0
            continue
        assert node.counts["mcts"] == own + below
        total = sum(child.scores["mcts"] * child.counts["mcts"] for child in node.children if "mcts" in child.counts)
        first = node.scores["mcts"] * node.counts["mcts"] - total
        assert first == pytest.approx(0.0 if node.is_root else own_value(node))


def own_value(node: Node) -> float:
    return node.scores["arbitrary"] if node.open or node.finished else 0.0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("in_flight", [1, 5])
def test_visits_and_values_add_up(rule: Selection, in_flight: int) -> None:
    for seed in range(4):
        tree = new_tree(DEEP_PROBLEM, seed=seed)
        asyncio.run(
            Mcts(simulations=17, branch=8, wave=in_flight, selection=rule)(tree, random_policy(), arbitrary_scorer())
        )
        assert sum(1 for node in tree.nodes if node.children) == 17
        assert tree.root.counts["mcts"] == len(tree) - 1
        check_visits(tree)


@pytest.mark.parametrize("rule", RULES)
def test_with_the_oracle_the_search_converges_to_an_optimal_first_step(rule: Selection) -> None:
    for problem in problems(8):
        tree = new_tree(problem)
        policy = ListingPolicy(random_moves())
        asyncio.run(Mcts(simulations=2, branch=1000, wave=1, selection=rule)(tree, policy, oracle_scorer()))
        visited = max(tree.root.children, key=lambda child: child.counts["mcts"])
        assert TASK.reachable(problem, visited.text)
        asyncio.run(Mcts(simulations=1000, branch=1000, selection=rule)(tree, policy, oracle_scorer()))
        best = max(tree.root.children, key=lambda child: child.scores["mcts"])
        assert TASK.reachable(problem, best.text)
        assert all((child.scores["mcts"] > 0) == bool(oracle_value(child)) for child in tree.root.children)
        grade(tree, TASK)
        chosen = best_of_n(tree, "mcts")
        assert chosen is not None
        assert chosen.reward == 1.0


def test_a_tree_that_is_fully_explored_ends_the_search() -> None:
    tree = new_tree()
    asyncio.run(Mcts(simulations=10**6, branch=1000, wave=7)(tree, ListingPolicy(random_moves()), arbitrary_scorer()))
    assert all(node.children for node in tree.nodes if node.open)
    assert tree.root.draws == 0
    size = len(tree)
    asyncio.run(Mcts(simulations=10, branch=1000)(tree, ListingPolicy(random_moves()), arbitrary_scorer()))
    assert len(tree) == size
    check_visits(tree)


def test_each_node_is_expanded_once() -> None:
    tree = new_tree()
    asyncio.run(Mcts(simulations=500, branch=3, wave=8)(tree, random_policy(), arbitrary_scorer()))
    assert all(node.draws == 3 for node in tree.nodes if node.open)


def test_the_step_limit_closes_nodes() -> None:
    tree = new_tree()
    one_step = Sampling(max_steps=1)
    asyncio.run(Mcts(simulations=100)(tree, random_policy(), arbitrary_scorer(), sampling=one_step))
    assert {node.step.end for node in tree.nodes[1:]} == {EndReason.STEPS}
    assert {node.depth for node in tree.nodes} == {0, 1}


def test_rollouts_give_finished_steps_the_verifiers_reward() -> None:
    """So trees that are grown to learn from need no other guide."""
    tree, policy = new_tree(), random_policy()
    guide = RolloutScorer(policy, TASK, 2, "guide")
    asyncio.run(Mcts(simulations=20, branch=4)(tree, policy, guide))
    visited = [leaf for leaf in tree.solutions() if "mcts" in leaf.scores]
    assert visited
    assert all(leaf.scores["mcts"] == leaf.reward for leaf in visited)


def test_cut_off_steps_are_worth_nothing() -> None:
    policy = ScriptedPolicy(random_moves(), Sampling(max_step_tokens=1))
    tree = new_tree()
    asyncio.run(Mcts(simulations=5)(tree, policy, arbitrary_scorer()))
    assert tree.nodes[1].scores == {"mcts": 0.0}


def test_a_search_goes_on_where_another_stopped() -> None:
    for rule in RULES:
        at_once, in_parts = new_tree(DEEP_PROBLEM), new_tree(DEEP_PROBLEM)
        asyncio.run(Mcts(simulations=24, selection=rule, wave=1)(at_once, random_policy(), arbitrary_scorer()))
        for part in (5, 1, 18):
            in_parts = Tree.from_json(in_parts.to_json())
            asyncio.run(Mcts(simulations=part, selection=rule, wave=1)(in_parts, random_policy(), arbitrary_scorer()))
        assert in_parts.to_json()["nodes"] == at_once.to_json()["nodes"]


def test_what_cannot_be_searched_is_refused() -> None:
    for option in ("branch", "wave", "simulations"):
        with pytest.raises(GradatimError, match=f"^Mcts: {option} must be greater than 0, got 0$"):
            Mcts(**{option: 0})  # type: ignore[arg-type]
    with pytest.raises(GradatimError, match="MCTS needs a scorer to guide it"):
        asyncio.run(Mcts()(new_tree(), random_policy()))


@settings(max_examples=80, deadline=None)
@given(
    limit=st.integers(0, 3000),
    seed=st.integers(0, 5),
    rule=st.sampled_from(RULES),
    in_flight=st.integers(1, 6),
)
def test_no_budget_is_exceeded_and_the_bookkeeping_survives_its_end(
    limit: int, seed: int, rule: Selection, in_flight: int
) -> None:
    tree = new_tree(DEEP_PROBLEM if seed % 2 else PROBLEM, seed=seed, limit=limit)
    asyncio.run(Mcts(simulations=10**6, selection=rule, wave=in_flight)(tree, random_policy(0.1), arbitrary_scorer()))
    assert tree.budget.total <= limit
    assert tree.budget.written("policy") == sum(len(node.step.tokens) * node.multiplicity for node in tree.nodes[1:])
    check_visits(tree)
