"""A limited search behind a server gives the same tree however many requests and problems are under way."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest

import failing_server as fail
from failing_server import FailingServer, Handler, asking, serving
from gradatim import Budget, GradatimError, Problem, Tree
from gradatim.policies.base import Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.policies.server import ServerPolicy, client
from gradatim.scorers.rollouts import RolloutScorer
from gradatim.search import AbMcts, Beam, Grow, IndependentSampling, Mcts, search_many
from gradatim.text.solution_end import SolutionEnd
from gradatim.tree import EndReason, Node, Step
from test_policies_limited import EvenTask, Search, look_ahead

SAMPLING = Sampling(max_step_tokens=9, max_steps=5)
RULES = Sampling(max_step_tokens=9, max_steps=5, solution_end=SolutionEnd(line=lambda line: "9" in line, stop=("33",)))
LINES = ("1\n", "22\n", "3\n", "4444\n", "a long line\n", "33 1\n", "9 \n", "é😀\n")


def writes(text: str, seed: int) -> list[str]:
    """Up to four lines that the prompt and the seed choose; a token is a character."""
    draw = random.Random(f"{text}|{seed}")
    return list("".join(draw.choices(LINES, k=draw.randint(0, 4))))


class Scorer:
    """Prefers some steps to others, by their text."""

    name = "text"

    async def score(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            node.scores.setdefault(self.name, random.Random(node.text).random())


SEARCHES: dict[str, Search] = {
    "sampling": lambda policy, tree: IndependentSampling(n=7, wave=4)(tree, policy),
    "beam": lambda policy, tree: Beam(width=2, branch=3)(tree, policy, Scorer()),
    "grow": lambda policy, tree: Grow(branching=(3, 2), rollouts=1)(tree, policy),
    "mcts": lambda policy, tree: Mcts(simulations=4, branch=3, wave=2)(tree, policy, Scorer()),
    "ab_mcts": lambda policy, tree: AbMcts(simulations=6, wave=3)(tree, policy, Scorer()),
    "mcts by rollouts": lambda policy, tree: Mcts(simulations=3, branch=2, wave=2)(
        tree, policy, RolloutScorer(policy, EvenTask(), rollouts=2)
    ),
    "looking ahead": look_ahead,
}
KINDS: dict[str, dict[str, Any]] = {
    "streams": {},
    "vllm": {"owner": "vllm"},
    "vllm that does not say what ended": {"owner": "vllm", "shows": frozenset({"logprobs", "usage", "stream"})},
    "without log-probabilities": {"shows": frozenset({"usage", "stream", "stop"})},
    "vllm without log-probabilities": {"owner": "vllm", "shows": frozenset({"usage", "stream", "stop"})},
    "chunks": {"tokens_a_chunk": 3},
    "unknown tokens": {"shows": frozenset({"stream", "stop"}), "tokens_a_chunk": 2},
    "whole answers": {"shows": frozenset({"usage"})},
    "a short context": {"context": 24},
}


class Delayed(Handler):
    """Answers after a while that differs by request, and not always at the first attempt."""

    generator = random.Random(0)
    failures = 0.0

    def do_POST(self) -> None:
        with self.server.lock:
            wait, fails = self.generator.random(), self.generator.random() < self.failures
            if fails:
                self.server.faults[:] = [self.generator.choice([fail.status(500), fail.hang_up, fail.content(b"<p>")])]
        time.sleep(0.004 * wait * wait)
        super().do_POST()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(client, "_sleep", sleep)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[FailingServer]:
    with serving(writes, Delayed) as running:
        yield running


def make(server: FailingServer, kind: str) -> None:
    for name, value in KINDS[kind].items():
        setattr(server, name, value)


def new_tree(limit: int | None, number: int = 0) -> Tree:
    return Tree(Problem(str(number), f"p{number}:\n"), seed=number, budget=Budget(limit))


def used(server: FailingServer, work: Callable[[ServerPolicy], Any], concurrency: int, sampling: Sampling) -> Any:
    async def main() -> Any:
        policy = asking(server.url, sampling=sampling, retries=9, concurrency=concurrency)
        try:
            return await work(policy)
        finally:
            await policy.close()

    return asyncio.run(main())


def searched(
    server: FailingServer, search: Search, limit: int, *, concurrency: int, in_flight: int, sampling: Sampling
) -> list[Any]:
    trees = [new_tree(limit + 5 * number, number) for number in range(4)]
    trees.extend(new_tree(limit, 4 + number) for number in range(4))
    used(
        server,
        lambda policy: search_many(trees, lambda tree: search(policy, tree), in_flight),
        concurrency,
        sampling,
    )
    assert all(tree.budget.total <= (tree.budget.limit or 0) for tree in trees)
    return [tree.to_json() for tree in trees]


TOGETHER = [each for each in itertools.product((1, 2, 7), (1, 3, 8)) if each != (1, 1)]


@pytest.mark.parametrize(("place", "name"), list(enumerate(SEARCHES)))
def test_limited_trees_do_not_depend_on_what_is_under_way(place: int, name: str) -> None:
    """Against one request at a time, where nothing is asked for that could turn out to be beyond the budget."""
    chosen = random.Random(name)
    for number, limit in enumerate((7, 28, 60, 300)):
        kind = list(KINDS)[(place + 2 * number) % len(KINDS)]
        sampling = chosen.choice([SAMPLING, RULES])
        with serving(writes, Delayed) as server:
            make(server, kind)
            one_by_one = searched(server, SEARCHES[name], limit, concurrency=1, in_flight=1, sampling=sampling)
            for concurrency, in_flight in {(7, 8), chosen.choice(TOGETHER)}:
                together = searched(
                    server, SEARCHES[name], limit, concurrency=concurrency, in_flight=in_flight, sampling=sampling
                )
                assert together == one_by_one, (kind, limit, concurrency, in_flight)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_server_gives_the_same_limited_trees_at_once_as_one_by_one(kind: str) -> None:
    with serving(writes, Delayed) as server:
        make(server, kind)
        for limit, sampling in ((29, RULES), (47, SAMPLING)):
            found = [
                searched(server, SEARCHES["sampling"], limit, concurrency=each, in_flight=each, sampling=sampling)
                for each in (1, 7)
            ]
            assert found[0] == found[1], limit


def cost(node: Node) -> int:
    """The tokens of what was written below the root: its characters, and the end of the text."""
    return len(node.text) + (node.step.end is EndReason.END_OF_TEXT)


@pytest.mark.parametrize("kind", ["streams", "vllm", "without log-probabilities"])
@pytest.mark.parametrize("concurrency", [1, 7])
def test_the_budget_goes_to_one_draw_after_the_other(server: FailingServer, kind: str, concurrency: int) -> None:
    """What draws of a limited tree have is what they have without a limit, cut off where the budget ends."""
    make(server, kind)
    free = new_tree(None)
    drawn = used(server, lambda policy: policy.extend([free.root], 5, steps=None), 1, SAMPLING)
    prompt, needed = len(free.problem.prompt), sum(map(cost, drawn))
    assert free.budget.total == prompt + needed
    for limit in range(prompt, free.budget.total + 3, 3):
        tree = new_tree(limit)
        found = used(server, lambda policy, tree=tree: policy.extend([tree.root], 5, steps=None), concurrency, SAMPLING)
        left, expected = limit - prompt, []
        for leaf in drawn:
            if left:
                expected.append(leaf.text[:left])
            left = max(0, left - cost(leaf))
        assert [leaf.text for leaf in found] == expected
        ends = [leaf.step.end for leaf in drawn[: len(found)]]
        assert [leaf.step.end for leaf in found][:-1] == ends[:-1]
        assert tree.budget.total == prompt + min(limit - prompt, needed)


def only_step(node: Node) -> list[ScriptedStep]:
    """The one step that may follow; where there is but one, a script and a server draw the same."""
    draw = random.Random(node.tree.problem.prompt + node.text)
    text = draw.choice(LINES)
    return [ScriptedStep(text[:-1], 1.0, EndReason.END_OF_TEXT) if draw.random() < 0.2 else ScriptedStep(text, 1.0)]


def writes_only(text: str, seed: int) -> list[str]:
    """What the script writes behind ``text``, to its end."""
    prompt, _, solution = text.partition("\n")
    tree = Tree(Problem("any", prompt + "\n"))
    node = tree.root
    for line in solution.splitlines(keepends=True):
        node = tree.add(node, Step((), line))
    while node.step.end is not EndReason.END_OF_TEXT:
        [step] = only_step(node)
        node = tree.add(node, Step((), step.text, end=step.end))
    return list(node.text[len(solution) :])


@pytest.mark.parametrize("name", ["sampling", "beam", "grow", "mcts", "ab_mcts"])
def test_a_server_keeps_the_rule_of_the_scripted_policy(name: str) -> None:
    """As far as a script says it: its solutions that end between two steps stay open, a server's are cut off there."""

    def outcome(tree: Tree) -> Any:
        return [(node.text, node.multiplicity, node.step.end.finishes) for node in tree.nodes], tree.budget

    sampling = Sampling(max_step_tokens=20, max_steps=5)
    with serving(writes_only, Delayed) as server:
        for limit in (2, 20, 33, 57, 300):
            here, there = ([new_tree(limit + number, number) for number in range(4)] for _ in range(2))
            script = ScriptedPolicy(only_step, sampling)
            asyncio.run(search_many(here, partial(SEARCHES[name], script)))
            used(
                server,
                lambda policy, there=there: search_many(there, partial(SEARCHES[name], policy)),
                7,
                sampling,
            )
            assert [outcome(tree) for tree in there] == [outcome(tree) for tree in here], limit


@pytest.mark.parametrize("name", ["sampling", "beam"])
def test_failures_that_pass_change_no_limited_tree(server: FailingServer, name: str) -> None:
    limits = (25, 60)
    expected = [
        searched(server, SEARCHES[name], limit, concurrency=1, in_flight=1, sampling=SAMPLING) for limit in limits
    ]

    class Failing(Delayed):
        failures = 0.15

    with serving(writes, Failing) as failing:
        found = [
            searched(failing, SEARCHES[name], limit, concurrency=7, in_flight=8, sampling=SAMPLING) for limit in limits
        ]
    assert found == expected


@pytest.mark.parametrize("concurrency", [1, 7])
def test_a_draw_that_fails_is_an_error_only_within_the_budget(concurrency: int) -> None:
    """And the draws behind it have what they have elsewhere."""
    free = new_tree(None)
    with serving(writes, Delayed) as server:
        drawn = used(server, lambda policy: policy.extend([free.root], 4, steps=None), 1, SAMPLING)
        fourth = server.generations[3]["seed"]

    class Failing(Delayed):
        def do_POST(self) -> None:
            self.server.key = None
            super().do_POST()

        def choice(self, body: dict[str, Any], *more: Any) -> dict[str, Any]:
            if body.get("seed") == fourth:
                raise ConnectionError
            return super().choice(body, *more)

    before = len(free.problem.prompt) + sum(map(cost, drawn[:3]))
    with serving(writes, Failing) as server:
        for limit in (before, before + 1, before + 100):
            tree = new_tree(limit)
            with pytest.raises(GradatimError) if limit > before else nullcontext():
                used(server, lambda policy, tree=tree: policy.extend([tree.root], 4, steps=None), concurrency, SAMPLING)
            assert tree.budget.total == before
            assert sum(node.multiplicity for node in tree.root.children) == 3


def test_what_is_certain_to_lie_beyond_the_budget_is_not_asked_for(server: FailingServer) -> None:
    for kind in ("streams", "vllm"):
        make(server, kind)
        for limit in (12, 40, 80):
            server.requests.clear()
            tree = new_tree(limit)
            found = used(server, lambda policy, tree=tree: policy.extend([tree.root], 60, steps=None), 1, SAMPLING)
            assert tree.budget.spent
            assert len(server.generations) == len(found)  # one after the other, nothing is in vain
            permitted = [body["max_tokens"] for body in server.generations]
            assert permitted == sorted(permitted, reverse=True)
            assert permitted[0] <= limit
            server.requests.clear()
            tree = new_tree(limit)
            used(server, lambda policy, tree=tree: policy.extend([tree.root], 60, steps=None), 7, SAMPLING)
            assert len(server.generations) <= len(found) + 2 * 7


def test_calls_on_one_tree_are_charged_in_the_order_in_which_they_were_made(server: FailingServer) -> None:
    def work(policy: ServerPolicy, tree: Tree) -> Any:
        imported = tree.add(tree.root, Step((), "imported\n"))
        return asyncio.gather(
            policy.extend([tree.root], 3, steps=None), policy.extend([imported], 2), policy.extend([tree.root], 2)
        )

    for limit in range(4, 70, 6):
        trees = [new_tree(limit) for _ in range(3)]
        for tree, concurrency in zip(trees, (1, 2, 7), strict=True):
            used(server, lambda policy, tree=tree: work(policy, tree), concurrency, SAMPLING)
        assert trees[0].to_json() == trees[1].to_json() == trees[2].to_json()


def test_a_search_that_is_cancelled_leaves_its_tree_usable(server: FailingServer) -> None:
    tree = new_tree(60)

    async def work(policy: ServerPolicy) -> None:
        first = asyncio.create_task(policy.extend([tree.root], 5, steps=None))
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await policy.extend([tree.root], steps=None)

    used(server, work, 2, SAMPLING)
    assert tree.budget.total <= 60
