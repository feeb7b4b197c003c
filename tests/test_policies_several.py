"""Several policies in one: draws are divided evenly, charged apart, and in the order of nodes."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clean_task import Given, ending
from gradatim.budget import Budget
from gradatim.errors import GradatimError
from gradatim.policies.base import Policy
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.policies.several import SeveralPolicies
from gradatim.scorers.collaborative import CollaborativePart
from gradatim.search import Beam
from gradatim.tree import EndReason, Node, Problem, Tree


def mentor(text: str) -> ScriptedPolicy:
    """Writes one word again and again, and ends with the third."""

    def steps(node: Node) -> list[ScriptedStep]:
        end = EndReason.END_OF_TEXT if node.depth == 2 else EndReason.BOUNDARY
        return [ScriptedStep(text, 1.0, end)]

    return ScriptedPolicy(steps, source=text)


def mentors() -> SeveralPolicies:
    return SeveralPolicies({name: mentor(name) for name in ("a", "b", "x")})


def test_draws_are_divided_evenly_and_charged_apart() -> None:
    tree = Tree(Problem("p", "go "))
    policy = mentors()
    assert isinstance(policy, Policy)
    ends = asyncio.run(policy.extend([tree.root], 7))
    assert Counter(end.step.source for end in ends) == {"a": 3, "b": 2, "x": 2}
    assert {child.step.text: child.multiplicity for child in tree.root.children} == {"a": 3, "b": 2, "x": 2}
    assert [tree.budget.written(name) for name in ("a", "b", "x", "policy")] == [3, 2, 2, 0]
    one_by_one = [asyncio.run(policy.extend([tree.root]))[0].step.text for _ in range(4)]
    assert one_by_one == ["b", "x", "a", "b"], "the seventh draw was a's"


def test_results_come_in_the_order_of_nodes() -> None:
    tree = Tree(Problem("p", "go "))
    policy = mentors()
    first, second, _ = asyncio.run(policy.extend([tree.root], 3))
    ends = asyncio.run(policy.extend([second, first], [1, 3], steps=None))
    assert [end.path()[1].step.text for end in ends] == ["b", "a", "a", "a"]
    assert all(end.finished for end in ends)


@settings(max_examples=30, deadline=None)
@given(limit=st.integers(0, 80))
def test_interns_choose_among_the_steps_of_mentors(limit: int) -> None:
    """An intern that goes on cleanly cannot save what the mentor ``x`` began."""
    tree = Tree(Problem("p", "go "), budget=Budget(limit))
    scorer = CollaborativePart(interns=("intern",), rollouts=1).open(Given({"intern": ScriptedPolicy(ending())}))
    asyncio.run(Beam(width=1, branch=3)(tree, mentors(), scorer))
    assert tree.budget.total <= limit
    scored = [node for node in tree.nodes[1:] if "collaborative" in node.scores]
    assert all(node.scores["collaborative"] == float("x" not in node.text) for node in scored)
    if not tree.budget.spent and tree.solutions():
        best = max(tree.solutions(), key=lambda leaf: leaf.scores["collaborative"])
        assert "x" not in best.text


def test_it_needs_policies() -> None:
    with pytest.raises(GradatimError, match="no policies"):
        SeveralPolicies({})
