"""Countdown without a model: a policy that plays at random, one that lists all moves, and scorers that know."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from gradatim.budget import SCORER, Account, Budget
from gradatim.policies.base import Sampling
from gradatim.policies.draws import draws_below
from gradatim.policies.scripted import Distribution, ScriptedPolicy, ScriptedStep, step_tokens
from gradatim.tasks.base import grade
from gradatim.tasks.countdown import Countdown, Move, Numbers, apply_move, legal_moves, make_problem, render_step
from gradatim.tree import EndReason, Node, Problem, Step, Tree

TASK = Countdown(numbers=3)
PROBLEM = make_problem((2, 3, 4), 10)  # 2 * 3 + 4, for instance
DEEP_PROBLEM = make_problem((2, 3, 4, 5), 40)


def problems(count: int) -> list[Problem]:
    return TASK.problems("train", count)


def new_tree(problem: Problem = PROBLEM, *, seed: int = 0, limit: int | None = None) -> Tree:
    return Tree(problem, seed=seed, budget=Budget(limit))


def random_moves(noise: float = 0.0) -> Distribution:
    """Every move that the last line allows, equally likely; ``noise`` of the probability goes to miscalculated ones."""

    def steps(node: Node) -> list[ScriptedStep]:
        line = node.tree.problem.prompt.split("from")[1] if node.is_root else node.step.text.split("|")[1]
        numbers = tuple(int(word) for word in line.split())
        moves = legal_moves(numbers)
        right = [_scripted(numbers, move, (1 - noise) / len(moves)) for move in moves]
        wrong = [_scripted(numbers, move, noise / len(moves), miscalculated=True) for move in moves]
        return right + (wrong if noise else [])

    return steps


def _scripted(numbers: Numbers, move: Move, probability: float, *, miscalculated: bool = False) -> ScriptedStep:
    written = Move(move.left, move.operator, move.right, move.result + 1) if miscalculated else move
    left = apply_move(numbers, written)
    text = render_step(written, left)
    if len(left) == 1:
        return ScriptedStep(text, probability, EndReason.END_OF_TEXT)
    return ScriptedStep(text + "\n", probability)


def random_policy(noise: float = 0.0) -> ScriptedPolicy:
    return ScriptedPolicy(random_moves(noise))


class ListingPolicy(ScriptedPolicy):
    """Proposes the first ``n`` possible steps of a distribution, once each, without chance."""

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        steps: int | None = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
    ) -> list[Node]:
        assert steps == 1
        children = []
        for node, count in draws_below(nodes, n, steps):
            for step in self.distribution(node)[:count]:
                tokens = step_tokens(step)
                if node.tree.budget.take(account or self.account, written=len(tokens)):
                    children.append(node.tree.add(node, Step(tokens, step.text, (), step.end)))
        return children


class DelayedPolicy(ScriptedPolicy):
    """Writes after a random number of turns of the event loop: results must not depend on it."""

    def __init__(self, distribution: Distribution, seed: int) -> None:
        super().__init__(distribution)
        self.generator = random.Random(seed)

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        steps: int | None = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
    ) -> list[Node]:
        for _ in range(self.generator.randrange(6)):
            await asyncio.sleep(0)
        return await super().extend(nodes, n, steps=steps, sampling=sampling, account=account)


class FunctionScorer:
    """Scores by a function of the node; reads each step's tokens once, as an incremental scorer does."""

    def __init__(self, function: Callable[[Node], float], name: str = "function") -> None:
        self.function = function
        self.name = name

    async def score(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            if self.name not in node.scores and node.tree.budget.take(SCORER, read=len(node.step.tokens)):
                node.scores[self.name] = self.function(node)


def oracle_value(node: Node) -> float:
    return float(TASK.reachable(node.tree.problem, node.text))


def oracle_scorer() -> FunctionScorer:
    return FunctionScorer(oracle_value, "oracle")


def arbitrary_value(node: Node) -> float:
    """A number from 0 to 1 that depends on the text only and means nothing."""
    return random.Random(node.text).random()


def arbitrary_scorer() -> FunctionScorer:
    return FunctionScorer(arbitrary_value, "arbitrary")


def exact_values(problem: Problem, distribution: Distribution) -> dict[str, float]:
    """For every partial solution, the exact probability that continuing it by ``distribution`` ends rightly."""
    tree = new_tree(problem)
    frontier = [tree.root]
    while frontier:
        frontier = asyncio.run(ListingPolicy(distribution).extend(frontier, 10_000))
    grade(tree, TASK)
    values: dict[Node, float] = {}
    for node in reversed(tree.nodes):
        shares = {step.text: step.probability for step in distribution(node)} if node.open else {}
        total = sum(shares.values())
        values[node] = (
            sum(shares[child.step.text] / total * values[child] for child in node.children)
            if node.open
            else float(node.reward or 0.0)
        )
    return {node.text: value for node, value in values.items()}
