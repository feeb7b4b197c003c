"""What holds for every search there is, and for every one that is put into the folder."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from every_search import EVERY_SEARCH
from gradatim.errors import GradatimError
from gradatim.part import make
from gradatim.policies.base import Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.search.around import SearchAround
from gradatim.search.decisions import DECISION
from gradatim.search.ranking import path_score
from gradatim.tree import EndReason, Node, Tree
from scripted_countdown import TASK, FunctionScorer, arbitrary_scorer, arbitrary_value, new_tree, random_policy

SEARCHES = pytest.mark.parametrize("name", EVERY_SEARCH)
AROUND = [name for name, search in EVERY_SEARCH.items() if isinstance(search, SearchAround)]


def searched(name: str, scorer: FunctionScorer | None = None, *, seed: int = 0, limit: int | None = None) -> Tree:
    tree = new_tree(seed=seed, limit=limit)
    search = EVERY_SEARCH[name]
    asyncio.run(search(tree, random_policy(noise=0.1), scorer or arbitrary_scorer(), answer=TASK.answer))
    return tree


@SEARCHES
@settings(max_examples=20, deadline=None)
@given(limit=st.integers(0, 1500), seed=st.integers(0, 5))
def test_no_search_exceeds_its_budget_and_every_one_ends(name: str, limit: int, seed: int) -> None:
    tree = searched(name, seed=seed, limit=limit)
    assert tree.budget.total <= limit
    assert tree.budget.written("policy") == sum(len(node.step.tokens) * node.multiplicity for node in tree.nodes[1:])
    assert tree.budget.read("scorer") == sum(len(node.step.tokens) for node in tree.nodes if "arbitrary" in node.scores)


@SEARCHES
def test_solutions_have_whatever_scores_they_are_chosen_by(name: str) -> None:
    """A minimum over steps needs the score of every step; where one is missing, nothing could be told apart."""
    search = EVERY_SEARCH[name]
    if name in ("grow", "momentum"):  # trees to learn from; and a search that says that it saves scores
        return
    options: dict[str, Any] = {"name": name, "aggregate": "min", "choose_by": "score"}
    if isinstance(search, SearchAround):
        options["search"] = replace(search.search, aggregate="min")
    tree = new_tree()
    asyncio.run(make("search", options)(tree, random_policy(noise=0.1), arbitrary_scorer(), answer=TASK.answer))
    scores = [path_score(leaf, "arbitrary", "min") for leaf in tree.solutions() if leaf_votes(name, leaf)]
    assert scores
    assert None not in scores


def leaf_votes(name: str, leaf: Node) -> bool:
    return name != "deepconf" or "deepconf" in leaf.scores  # what it stopped has no vote, and is not scored


def no_end(node: Node) -> list[ScriptedStep]:
    """Steps that a limit cuts off, but for one in two."""
    cut = ScriptedStep(f"on and on {node.depth}", 0.5, EndReason.LENGTH)
    return [cut, ScriptedStep(f"and then {node.depth}\n", 0.5)]


@SEARCHES
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_policy_that_never_ends_a_solution_ends_every_search_with_none(name: str, temperature: float) -> None:
    tree = new_tree()
    policy = ScriptedPolicy(no_end)
    sampling = Sampling(temperature=temperature, max_steps=6)
    asyncio.run(EVERY_SEARCH[name](tree, policy, arbitrary_scorer(), sampling=sampling, answer=TASK.answer))
    assert not tree.solutions()
    assert EVERY_SEARCH[name].choose(tree, "arbitrary") is None


class Silent(FunctionScorer):
    """Has nothing to say of some steps."""

    def __init__(self, says_of: int) -> None:
        super().__init__(arbitrary_value)
        self.says_of = says_of

    async def score(self, nodes: Sequence[Node]) -> None:
        await super().score([node for node in nodes if node.id % 3 < self.says_of])


@SEARCHES
@pytest.mark.parametrize("around", AROUND)
def test_every_search_works_within_those_around_others(name: str, around: str) -> None:
    for limit in (100, 600, None):
        tree = new_tree(limit=limit)
        search = make("search", {"name": around, "search": EVERY_SEARCH[name]})
        asyncio.run(search(tree, random_policy(noise=0.1), arbitrary_scorer(), answer=TASK.answer))
        assert limit is None or tree.budget.total <= limit
        assert len(tree) > 1


@SEARCHES
@pytest.mark.parametrize("says_of", [0, 1])
def test_steps_without_a_score_end_no_search(name: str, says_of: int) -> None:
    tree = searched(name, Silent(says_of))
    chosen = EVERY_SEARCH[name].choose(tree, "function")
    assert chosen is None or chosen.finished


@SEARCHES
def test_a_search_that_is_guided_says_so_where_nothing_guides_it(name: str) -> None:
    search = EVERY_SEARCH[name]
    if search.is_guided:
        with pytest.raises(GradatimError, match="needs a scorer to guide it"):
            asyncio.run(search(new_tree(), random_policy()))


@SEARCHES
def test_a_number_that_is_not_finite_is_refused_and_never_ranked(name: str) -> None:
    search = EVERY_SEARCH[name]
    if search.is_guided:
        with pytest.raises(GradatimError, match="not a finite number"):
            search.choose(searched(name, FunctionScorer(lambda node: math.nan)), "function")


@SEARCHES
def test_what_a_search_decided_is_one_of_three_and_has_a_reason(name: str) -> None:
    for node in searched(name).nodes:
        if note := node.notes.get(DECISION):
            assert note["decision"] in {"expanded", "pruned", "dropped"}
            assert note["why"]


@SEARCHES
def test_what_makes_a_search_larger_is_an_option_of_it(name: str) -> None:
    for option in EVERY_SEARCH[name].grows_with:
        assert functools.reduce(getattr, option.split("."), EVERY_SEARCH[name])
