"""Outcomes spread by attention: shares that add up, and values of shared steps by hand."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gradatim.budget import Budget
from gradatim.errors import GradatimError
from gradatim.part import make
from gradatim.run import run_recipe
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.store import TreeStore
from gradatim.tree import EndReason, Problem, Step, Tree
from gradatim.values.redistributed import shares
from small_runs import small_recipe
from test_engine_attention import ends_of, expected
from tiny_models import tiny_classifier


class Lends:
    """A context with one reward model."""

    def __init__(self) -> None:
        self.scorer = ProcessRewardScorer(tiny_classifier())

    def reward_model(self, name: str, key: str, layout: str = "auto") -> ProcessRewardScorer:
        return self.scorer


def solved(limit: int | None = None) -> Tree:
    """Three solutions, of which two share their first two steps; one was drawn three times, one is unfinished."""
    tree = Tree(Problem("p", ""), prompt_tokens=(5, 6, 7), budget=Budget(limit))
    first = tree.add(tree.root, Step((8, 9, 3), "a\n"))
    second = tree.add(first, Step((10, 3), "b\n"))
    ends = [
        tree.add(second, Step((11, 1), "c", end=EndReason.END_OF_TEXT)),
        tree.add(second, Step((12, 13, 1), "d", end=EndReason.END_OF_TEXT)),
        tree.add(tree.root, Step((14, 15, 1), "e", end=EndReason.END_OF_TEXT)),
    ]
    for _ in range(2):
        tree.add(second, ends[0].step)
    tree.add(first, Step((16,), "f", end=EndReason.LENGTH))
    for leaf, reward in zip(ends, (1.0, 0.25, -2.0), strict=True):
        leaf.reward = reward
    return tree


def write(tree: Tree, **options: Any) -> None:
    asyncio.run(make("values", {"redistributed": options})(tree, Lends()))


@pytest.mark.parametrize("outcome", ["reward", "score"])
def test_values_are_shares_of_outcomes(outcome: str) -> None:
    tree, model = solved(), tiny_classifier()
    write(tree, outcome=outcome)
    sums: dict[int, float] = {}
    draws: dict[int, int] = {}
    for leaf in tree.solutions():
        attention = expected(model, leaf.tokens, ends_of(leaf))[1:]
        worth = leaf.reward if outcome == "reward" else leaf.scores["process_reward"]
        assert worth is not None
        for node, each in zip(leaf.path()[1:], attention, strict=True):
            sums[node.id] = sums.get(node.id, 0) + leaf.multiplicity * worth * each / sum(attention)
            draws[node.id] = draws.get(node.id, 0) + leaf.multiplicity
    assert {node.id: node.counts["value"] for node in tree.nodes if "value" in node.scores} == draws
    for place, total in sums.items():
        assert tree.nodes[place].scores["value"] == pytest.approx(total / draws[place], abs=1e-5)
    outcomes = [leaf.reward if outcome == "reward" else leaf.scores["process_reward"] for leaf in tree.solutions()]
    everything = math.fsum(node.scores["value"] * node.counts["value"] for node in tree.nodes if node.id in draws)
    weighed = zip(tree.solutions(), outcomes, strict=True)
    assert everything == pytest.approx(sum(leaf.multiplicity * (worth or 0.0) for leaf, worth in weighed))


@example([5e-324], 1.0, 0.5)  # the smallest number that there is, of which there is no half
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(-3, 3, allow_subnormal=False), st.floats(0, 1))
def test_shares_add_up_to_the_outcome(attention: list[float], outcome: float, spread: float) -> None:
    found = shares(attention, outcome, spread)
    assert math.fsum(found) == pytest.approx(outcome, abs=1e-9)
    for end in range(len(found)):  # the potential before the last step is what was handed out so far
        assert abs(math.fsum(found[:end])) <= abs(spread * outcome) + 1e-9
    assert shares(attention, outcome, 0.0) == [0.0] * (len(attention) - 1) + [outcome]


def test_without_attention_the_last_step_has_everything() -> None:
    assert shares([0.0, 0.0], 2.0) == [0.0, 2.0]


@pytest.mark.parametrize("limit", [0, 9, 14, 40])
def test_solutions_that_the_budget_cannot_pay_for_have_no_part(limit: int) -> None:
    tree = solved(limit)
    write(tree)
    scored = [leaf for leaf in tree.solutions() if "process_reward" in leaf.scores]
    assert {node.id for node in tree.nodes if "value" in node.scores} == {
        node.id for leaf in scored for node in leaf.path()[1:]
    }
    assert len(scored) == {0: 0, 9: 1, 14: 2, 40: 3}[limit]
    assert tree.budget.total <= limit


def test_a_solution_without_a_reward_is_refused() -> None:
    tree = solved()
    tree.solutions()[0].reward = None
    with pytest.raises(GradatimError, match="has no reward; grade the tree, or spread the score"):
        write(tree)
    write(tree, outcome="score")


def test_values_and_scores_of_one_name_are_refused() -> None:
    """The values would take the place of the scores that they are made of."""
    with pytest.raises(GradatimError, match="'process_reward'; give the values another key"):
        make("values", {"redistributed": {"key": "process_reward"}})


def test_only_reward_models_have_such_attention() -> None:
    with pytest.raises(GradatimError, match="'value_head' is no ProcessRewardPart"):
        make("values", {"redistributed": {"scorer": "value_head"}})


def test_a_run_writes_them_beside_other_values(tmp_path: Path) -> None:
    values = ["backup", {"redistributed": {"key": "credit", "outcome": "score"}}]
    content: dict[str, Any] = {"problems": {"train": 1, "test": 0}, "values": values, "evaluation": {"samples": 1}}
    recipe = small_recipe(
        judge=None, objective=None, models={"scorer": {"model": "shipped:countdown-reward"}}, **content
    )
    run_recipe(recipe, tmp_path)
    with TreeStore(tmp_path / "trees" / "round-1.jsonl") as store:
        solutions = [leaf for tree in store for leaf in tree.solutions()]
    assert solutions
    assert all("credit" in node.scores and "value" in node.scores for leaf in solutions for node in leaf.path()[1:])
