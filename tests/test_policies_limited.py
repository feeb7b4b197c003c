"""A limited search gives the same tree whatever else runs, and the budget ends in the order of draws."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fake_vllm
from every_search import EVERY_SEARCH
from gradatim.budget import Budget
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.policies.transformers import TransformersPolicy
from gradatim.policies.vllm import VllmPolicy
from gradatim.scorers.rollouts import RolloutScorer
from gradatim.search import AbMcts, Beam, Grow, IndependentSampling, Mcts, search_many
from gradatim.tasks.base import Verdict
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.text.boundaries.regular_expression import RegularExpression
from gradatim.text.solution_end import NextProblem, SolutionEnd
from gradatim.tree import EndReason, Node, Problem, Tree
from test_policies_exact import SHORT, make_policy, make_tree, structure
from tiny_models import prompt, tiny_causal, word_tokenizer


def _nine(line: str) -> bool:
    return line.endswith("9")


def _turned(problem: Problem, text: str) -> NextProblem | None:
    found = re.search(r" 3\d", text)  # seen when a line ends, so that what was written behind it is dropped
    return NextProblem(found.start(), found.end()) if found else None


RULES = SolutionEnd(line=_nine, next_problem=_turned, stop=("\n 2",))
SAMPLINGS = {
    "plain": SHORT,
    "rules": Sampling(max_step_tokens=8, max_steps=5, boundary=Delimiter(at=("\n", " 1")), solution_end=RULES),
    "greedy": Sampling(temperature=0, max_step_tokens=8, max_steps=5, boundary=Delimiter(at=("\n", " 1"))),
    "ahead": Sampling(max_step_tokens=8, max_steps=5, boundary=RegularExpression(pattern=r"\n|(?= 1\d 2)")),
}


class LengthScorer:
    """Prefers some steps to others, without a model."""

    name = "length"

    async def score(self, nodes: Any) -> None:
        await asyncio.sleep(0)
        for node in nodes:
            node.scores.setdefault(self.name, (sum(node.tokens) % 17) / 17)


class EvenTask:
    """Rewards solutions of an even number of words."""

    name = "even"

    def answer(self, problem: Problem, text: str) -> str:
        return str(len(text.split()) % 2 == 0)

    async def verify(self, problem: Problem, text: str) -> Verdict:
        return Verdict(float(len(text.split()) % 2 == 0), "")

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        return []


Search = Callable[[Policy, Tree], Awaitable[object]]


async def look_ahead(policy: Policy, tree: Tree) -> None:
    """Several steps at a time, and another number of draws below each node."""
    nodes = list(dict.fromkeys(await policy.extend([tree.root], 4, steps=2)))
    counts = [place % 3 for place in range(len(nodes) + 1)]
    await policy.extend([*nodes, tree.root], counts, steps=2)
    await policy.extend(nodes, counts[1:], steps=None)


SEARCHES: dict[str, Search] = {
    "looking ahead": look_ahead,
    "sampling": lambda policy, tree: IndependentSampling(n=10, wave=5)(tree, policy),
    "beam": lambda policy, tree: Beam(width=3, branch=3)(tree, policy, LengthScorer()),
    "grow": lambda policy, tree: Grow(branching=(4, 3), rollouts=2)(tree, policy),
    "grow by rollouts": lambda policy, tree: Grow(branching=(3, 2))(
        tree, policy, RolloutScorer(policy, EvenTask(), rollouts=3)
    ),
    "mcts": lambda policy, tree: Mcts(simulations=8, branch=3, wave=3)(tree, policy, LengthScorer()),
    "ab_mcts": lambda policy, tree: AbMcts(simulations=12, wave=3)(tree, policy, LengthScorer()),
    "mcts by rollouts": lambda policy, tree: Mcts(simulations=5, branch=2, wave=2)(
        tree, policy, RolloutScorer(policy, EvenTask(), rollouts=2)
    ),
}


def limited_trees(count: int, limit: int) -> list[Tree]:
    """Trees whose limits differ a little, so that not all of them end at the same moment."""
    return [Tree(make_tree(number).problem, budget=Budget(limit + 7 * number)) for number in range(count)]


def searched(search: Search, limit: int, sampling: Sampling, *, branches: int, in_flight: int) -> list[Any]:
    policy = make_policy(max_branches=branches, sampling=sampling)
    trees = limited_trees(4, limit)
    asyncio.run(search_many(trees, lambda tree: search(policy, tree), in_flight))
    assert not policy._orders
    assert all(tree.budget.total <= (tree.budget.limit or 0) for tree in trees)
    return [(structure(tree), tree.budget, [node.reward for node in tree.nodes]) for tree in trees]


@pytest.mark.parametrize("name", SEARCHES)
@settings(max_examples=3, deadline=None, phases=(Phase.generate,))
@given(
    limit=st.integers(10, 160),
    sampling=st.sampled_from(sorted(SAMPLINGS)),
    branches=st.sampled_from([2, 3, 7, 64]),
    in_flight=st.sampled_from([1, 2, 4]),
)
def test_limited_trees_do_not_depend_on_the_batch(
    name: str, limit: int, sampling: str, branches: int, in_flight: int
) -> None:
    """Against one branch at a time, where nothing is written that could turn out to be beyond the budget."""
    one_by_one = searched(SEARCHES[name], limit, SAMPLINGS[sampling], branches=1, in_flight=1)
    together = searched(SEARCHES[name], limit, SAMPLINGS[sampling], branches=branches, in_flight=in_flight)
    assert together == one_by_one


@pytest.mark.parametrize("name", sorted(set(EVERY_SEARCH) - set(SEARCHES)))
def test_no_search_depends_on_the_batch(name: str) -> None:
    def search(policy: Policy, tree: Tree) -> Awaitable[object]:
        return EVERY_SEARCH[name](tree, policy, LengthScorer(), answer=EvenTask().answer)

    alone, together = (
        searched(search, 70, SAMPLINGS["rules"], branches=branches, in_flight=branches) for branches in (1, 5)
    )
    assert alone == together


def steps_of(node: Node) -> list[ScriptedStep]:
    return [
        ScriptedStep("ab\n", 0.4),
        ScriptedStep("a longer step\n", 0.3),
        ScriptedStep("the end", 0.3, EndReason.END_OF_TEXT),
    ]


POLICIES: dict[str, Callable[[], Policy]] = {
    "engine": lambda: make_policy(max_branches=4),
    "engine, wide": lambda: make_policy(max_branches=64),
    "vllm": lambda: VllmPolicy(fake_vllm.LLM(tiny_causal(), word_tokenizer()), word_tokenizer(), sampling=SHORT),
    "scripted": lambda: ScriptedPolicy(steps_of, Sampling(max_steps=5)),
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("steps", [1, 2, None])
def test_the_budget_goes_to_one_draw_after_the_other(
    name: str, steps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What draws of a limited tree have is what they have without a limit, cut off where the budget ends."""
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm)

    def draw(policy: Policy, tree: Tree, n: int) -> list[Node]:
        return asyncio.run(policy.extend([tree.root], n, steps=steps))

    free = Tree(make_tree().problem)
    alone = POLICIES[name]()
    drawn = [draw(alone, free, 1)[0].tokens[len(free.root.tokens) :] for _ in range(5)]
    policy = POLICIES[name]()
    for limit in range(len(free.root.tokens), free.budget.total + 1, 1 if steps == 1 else 3):
        tree = Tree(free.problem, budget=Budget(limit))
        leaves = draw(policy, tree, 5)
        left, expected = limit - len(free.root.tokens), []
        for tokens in drawn:
            expected.append(tokens[:left])
            left = max(0, left - len(tokens))
        expected = [tokens for tokens in expected if tokens]
        assert [leaf.tokens[len(tree.root.tokens) :] for leaf in leaves] == expected
        assert tree.budget.total == len(tree.root.tokens) + min(limit - len(free.root.tokens), sum(map(len, drawn)))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("steps", [1, 2, None])
def test_draws_that_are_all_alike_are_written_and_charged_once(
    name: str, steps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm)
    greedy = Sampling(temperature=0, max_step_tokens=8, max_steps=5, boundary=Delimiter(at=("\n", " 1")))
    trees = [Tree(make_tree().problem) for _ in range(2)]
    for tree, n in zip(trees, (1, 5), strict=True):
        policy = POLICIES[name]()
        found = asyncio.run(policy.extend([tree.root], n, steps=steps, sampling=greedy))
        assert len(found) == n
        assert len(set(found)) == 1
        assert found[0].multiplicity == n
        assert tree.root.draws == n
    assert trees[0].budget == trees[1].budget
    assert [node.step for node in trees[0].nodes] == [node.step for node in trees[1].nodes]


def test_branches_that_the_budget_will_not_reach_are_not_written() -> None:
    policy = make_policy(max_branches=2)
    tree = Tree(Problem("a", prompt(5, 6, 7, 3)), budget=Budget(14))
    asyncio.run(policy.extend([tree.root], 50))
    assert tree.budget.spent
    assert policy.statistics.tokens < 40


def test_an_exhausted_budget_ends_a_request_at_once() -> None:
    policy = make_policy()
    tree = Tree(Problem("a", prompt(5, 6, 7, 3)), budget=Budget(4))  # it pays for the prompt alone
    assert asyncio.run(policy.extend([tree.root], 3)) == []
    assert tree.budget.read("policy") == 4
    assert policy.statistics.passes == 0


def test_a_search_that_is_cancelled_leaves_its_tree_chargeable() -> None:
    policy = make_policy(max_branches=2)
    tree, other = Tree(make_tree(1).problem, budget=Budget(60)), make_tree(2)

    async def work() -> None:
        first = asyncio.create_task(policy.extend([tree.root], 5, steps=None))
        second = asyncio.create_task(policy.extend([other.root], 3))
        for _ in range(6):
            await asyncio.sleep(0)
        first.cancel()
        await second
        assert await policy.extend([tree.root], 4, steps=None)

    asyncio.run(work())
    assert not policy._orders
    assert tree.budget.written("policy") > sum(len(node.step.tokens) for node in tree.nodes[1:])  # what was lost too
    assert tree.budget.total <= 60


def test_the_engine_refuses_nothing_that_fits() -> None:
    """A budget that is just enough gives the whole tree, in every batch."""
    free = make_tree(3)
    asyncio.run(make_policy().extend([free.root], 6, steps=None))
    for branches in (1, 3, 64):
        tree = Tree(free.problem, budget=Budget(free.budget.total))
        asyncio.run(
            TransformersPolicy(tiny_causal(), word_tokenizer(), sampling=SHORT, max_branches=branches).extend(
                [tree.root], 6, steps=None
            )
        )
        assert structure(tree) == structure(free)
