"""Binary search finds exactly what a linear scan would, in few batches, and says nothing that it did not find."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clean_task import Clean, CountingPolicy, Given, ending, write
from gradatim.budget import Budget
from gradatim.policies.scripted import ScriptedPolicy
from gradatim.scorers.rollouts import RolloutsPart
from gradatim.tasks.base import grade
from gradatim.tree import Node, Problem, Tree
from gradatim.values.binary_search import FIRST_ERROR, BinarySearch
from gradatim.values.scored import Scored
from scripted_countdown import TASK, new_tree, problems, random_policy

KEY = "value"


def wrong_solution(length: int, error: int) -> tuple[Tree, Node]:
    """A tree whose only solution has its first error at a step, counted from 1."""
    tree = Tree(Problem("p", "go "))
    leaf = write(tree, *["a\n"] * (error - 1), "x\n", *["b\n"] * (length - error))
    grade(tree, Clean())
    return tree, leaf


@pytest.mark.parametrize("length", range(1, 18))
def test_it_finds_the_first_error_of_the_linear_scan_in_few_batches(length: int) -> None:
    most = 0
    for error in range(1, length + 1):
        policy = CountingPolicy(ending())
        tree, leaf = wrong_solution(length, error)
        path = leaf.path()
        asyncio.run(BinarySearch(rollouts=2)(tree, Given({"policy": policy})))
        scanned = next(node for node in path if "x" in node.text)
        assert [node for node in path if FIRST_ERROR in node.notes] == [scanned] == [path[error]]
        assert [node.scores[KEY] for node in path[1:]] == [1.0] * (error - 1) + [0.0] * (length - error + 1)
        assert all(node.counts[KEY] >= 1 for node in path[1:])
        most = max(most, policy.asked)
    assert most == math.ceil(math.log2(length)) + 1


def test_it_costs_less_than_rollouts_of_every_step() -> None:
    spent = []
    for values in (BinarySearch(rollouts=8), Scored(scorer=RolloutsPart(rollouts=8))):
        tree, _ = wrong_solution(16, 11)
        asyncio.run(values(tree, Given({"policy": ScriptedPolicy(ending())})))
        spent.append(tree.budget.written("policy"))
    halved, scanned = spent
    assert halved == (1 + 4) * 8 * 5, "five steps' rollouts, each of 4 letters and its end"
    assert scanned == 15 * 7 * 5, "one rollout of each open step is the solution itself"


def test_solutions_that_the_tree_has_are_used_and_what_was_found_is_shared() -> None:
    tree = Tree(Problem("p", "go "))
    write(tree, "a\n", "a\n", "a\n", "done")
    wrong = [write(tree, "a\n", "a\n", "x\n", "b\n", end) for end in ("1", "2")]
    policy = CountingPolicy(ending())
    grade(tree, Clean())
    asyncio.run(BinarySearch(rollouts=1)(tree, Given({"policy": policy})))
    assert policy.asked == 1, "two steps are known to be right; the other solution's first error is the first one's"
    for leaf in wrong:
        assert [node.scores[KEY] for node in leaf.path()[1:]] == [1, 1, 0, 0, 0]
        assert FIRST_ERROR in leaf.path()[3].notes


def test_the_most_convincing_wrong_solution_comes_first() -> None:
    tree = Tree(Problem("p", "go "))
    doubtful, convincing = write(tree, "a\n", "x"), write(tree, "c\n", "x")
    for end in ("1", "2", "3"):
        write(tree, "c\n", end)
    write(tree, "a\n", "1")
    grade(tree, Clean())
    asyncio.run(BinarySearch(rollouts=1, max_solutions=1)(tree, Given({"policy": ScriptedPolicy(ending())})))
    assert KEY in convincing.scores
    assert KEY not in doubtful.scores


def test_soft_values_are_shares_of_what_was_looked_at() -> None:
    policy = ScriptedPolicy(lambda node: ending(0.5)(node))
    tree, leaf = wrong_solution(4, 4)
    asyncio.run(BinarySearch(rollouts=400, labels="soft")(tree, Given({"policy": policy})))
    path = leaf.path()
    assert KEY not in path[1].scores, "it was never looked at"
    assert path[2].scores[KEY] == pytest.approx(0.5, abs=0.08)
    assert path[2].counts[KEY] == 400
    assert path[4].scores[KEY] == 0.0


def test_no_step_is_to_blame_where_nothing_is_right() -> None:
    tree, _ = wrong_solution(3, 2)
    before = len(tree)
    asyncio.run(BinarySearch(rollouts=3)(tree, Given({"policy": ScriptedPolicy(lambda node: ending(1.0)(node)[1:])})))
    assert all(KEY not in node.scores for node in tree.nodes)
    assert FIRST_ERROR in tree.root.notes
    assert len(tree) == before + 1


def test_a_provers_solutions_lie_apart() -> None:
    tree, leaf = wrong_solution(4, 3)
    before = len(tree)
    context = Given({"policy": ScriptedPolicy(ending(1.0)), "prover": ScriptedPolicy(ending())})
    asyncio.run(BinarySearch(rollouts=2, model="prover", key="found")(tree, context))
    assert len(tree) == before
    assert [node.scores["found"] for node in leaf.path()[1:]] == [1, 1, 0, 0]
    assert list(tree.budget.accounts) == ["prover"]


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(0, 300), rollouts=st.integers(1, 4), seed=st.integers(0, 5))
def test_the_budget_may_end_anywhere(limit: int, rollouts: int, seed: int) -> None:
    tree = new_tree(problems(1)[0], seed=seed)
    policy = random_policy(noise=0.3)
    asyncio.run(policy.extend([tree.root], 3, steps=None))
    grade(tree, TASK)
    original = list(tree.nodes)
    tree.budget = Budget(tree.budget.total + limit, tree.budget.accounts)
    asyncio.run(BinarySearch(rollouts=rollouts)(tree, Given({"policy": policy}, TASK)))
    assert (
        tree.budget.spent
        or all(KEY in node.scores for leaf in original if leaf.finished for node in leaf.path()[1:])
        or FIRST_ERROR in tree.root.notes
    )
    for node in tree.nodes[1:]:
        assert node.scores.keys() == node.counts.keys()
        if node.scores.get(KEY) == 1.0:
            assert any(leaf.correct for leaf in node.leaves())
        if FIRST_ERROR in node.notes and node.open:
            assert node.counts[KEY] >= rollouts
