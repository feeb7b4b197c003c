"""A policy without a model: steps are drawn from a distribution that a function writes down.

For tests, where the truth about every step must be known, and for teaching, where a search should be watched without
waiting for a model. It keeps every promise that a policy makes: budgets, merging, seeds, log-probabilities.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gradatim.budget import POLICY, Account
from gradatim.policies.base import Sampling
from gradatim.policies.draws import distinct_draws, draws_below
from gradatim.policies.paid_paths import PaidPaths
from gradatim.tree import EndReason, Node, Step, Tree

END_TOKEN = 0  # the id that ends a solution; it has no text. All other ids are the ordinals of characters.


class ScriptedStep(NamedTuple):
    """One possible next step.

    Attributes:
        text: its text, boundary included.
        probability: how likely it is, relative to the other steps at the same place.
        end: ``BOUNDARY`` or ``END_OF_TEXT``.
    """

    text: str
    probability: float
    end: EndReason = EndReason.BOUNDARY


Distribution = Callable[[Node], Sequence[ScriptedStep]]


class ScriptedPolicy:
    """Draws steps from ``distribution``; a token is a character, and :data:`END_TOKEN` ends a solution.

    Log-probabilities are the distribution's own, spread over the characters by the chain rule: their sum is the log of
    the step's probability if no possible step begins with another one. Temperature, top-p and top-k apply to whole
    steps. What is drawn depends on the tree's seed and on what was drawn before in the tree, and on nothing else.

    Args:
        distribution: the possible next steps at an open node; at least one, with positive probabilities.
        sampling: used where a call gives none.
        source: what it calls itself on the steps that it writes.
    """

    def __init__(self, distribution: Distribution, sampling: Sampling | None = None, source: str = "scripted") -> None:
        self.account = POLICY
        self.distribution = distribution
        self._paid: weakref.WeakKeyDictionary[Tree, PaidPaths] = weakref.WeakKeyDictionary()
        self.source = source
        self.sampling = Sampling() if sampling is None else sampling

    def release(self, tree: Tree) -> None:
        """Forget what was paid for of a tree that is done."""
        self._paid.pop(tree, None)

    async def close(self) -> None:
        """Nothing is held between searches."""

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        steps: int | None = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
    ) -> list[Node]:
        """Continue each open node; see :class:`gradatim.policies.base.Policy`.

        A draw that the budget ends between two steps is returned as the open node it reached. What is drawn below a
        step depends on how often it was drawn from before, so ``k`` steps and ``k`` more are ``2k`` steps.
        """
        sampling, account = sampling or self.sampling, account or self.account
        await asyncio.sleep(0)  # let the other searches run, as a model would
        ends: list[Node] = []
        for node, count in draws_below(nodes, n, steps):
            for keys in distinct_draws(node, count, sampling):
                end = self._write(node, keys, steps, sampling, account)
                ends.extend([] if end is None else [end] * len(keys))
        return ends

    def _write(
        self, start: Node, keys: list[int], steps: int | None, sampling: Sampling, account: Account
    ) -> Node | None:
        """Write up to ``steps`` steps below ``start``; returns the last one's node, ``None`` if there is none."""
        node = start
        for _ in itertools.count() if steps is None else range(steps):
            child = self._draw_step(node, keys, sampling, account)
            if child is None:
                break
            node = child
            if not node.open:
                break
            keys = [] if node.depth - start.depth == steps else [node.tree.draw(node) for _ in keys]
        return None if node is start else node

    def _draw_step(self, node: Node, keys: list[int], sampling: Sampling, account: Account) -> Node | None:
        """Add one drawn step below ``node``, once for each of ``keys``, as far as the budget goes; ``None`` if nothing
        is left at all."""
        tree = node.tree
        tree.set_prompt_tokens([ord(character) for character in tree.problem.prompt], "characters")
        paid = self._paid.setdefault(tree, PaidPaths(tree.budget))
        if not paid.charge(node, len(node.tokens), account):
            return None
        steps = self.distribution(node)
        if not steps:
            raise ValueError(f"the distribution has no step after {node.text!r}")
        index = random.Random(keys[0]).choices(range(len(steps)), _weights(steps, sampling))[0]
        tokens = step_tokens(steps[index])
        end = steps[index].end
        if len(tokens) > sampling.max_step_tokens:
            tokens, end = tokens[: sampling.max_step_tokens], EndReason.LENGTH
        granted = tree.budget.take_up_to(account, len(tokens))
        if granted < len(tokens):
            tokens, end = tokens[:granted], EndReason.BUDGET
        if not tokens:
            return None
        text = steps[index].text[: len(tokens)]
        ending = None
        if end is not EndReason.END_OF_TEXT:
            solution = node.text + text
            ending = sampling.solution_end.find(tree.problem, solution, cut_off=end.cuts_off)
        if ending is not None:
            end = ending.reason
            kept = min(len(tokens), max(1, ending.seen - len(node.text)))
            tree.budget.give_back(account, len(tokens) - kept)
            tokens, text = tokens[:kept], text[: max(0, ending.length - len(node.text))]
        elif end is EndReason.BOUNDARY and node.depth + 1 >= sampling.max_steps:
            end = EndReason.STEPS
        step = Step(tokens, text, _log_probabilities(steps, tokens), end, source=self.source)
        child = tree.add(node, step, key=keys[0])
        for key in keys[1:]:
            tree.add(node, step, key=key)
        paid.mark_written(child, len(tokens), account)
        return child


def step_tokens(step: ScriptedStep) -> tuple[int, ...]:
    """The ids of a step: its characters' ordinals, and the end token if it ends the solution."""
    ending = (END_TOKEN,) if step.end is EndReason.END_OF_TEXT else ()
    return (*map(ord, step.text), *ending)


def _weights(steps: Sequence[ScriptedStep], sampling: Sampling) -> list[float]:
    """``[steps]``: weights to draw by, after temperature, top-k and top-p."""
    ranked = sorted(range(len(steps)), key=lambda index: -steps[index].probability)
    if sampling.temperature == 0:
        return [float(index == ranked[0]) for index in range(len(steps))]
    largest = steps[ranked[0]].probability
    weights = [(step.probability / largest) ** (1 / sampling.temperature) for step in steps]
    kept = ranked[: sampling.top_k or None]
    enough = sampling.top_p * sum(weights[index] for index in kept)
    allowed: set[int] = set()
    for index in kept:
        if allowed and sum(weights[other] for other in allowed) >= enough:
            break
        allowed.add(index)
    return [weight if index in allowed else 0.0 for index, weight in enumerate(weights)]


def _log_probabilities(steps: Sequence[ScriptedStep], tokens: tuple[int, ...]) -> tuple[float, ...]:
    """``[tokens]``: log-probability of each token after those before it, at temperature 1 and without truncation."""
    possible = [(step_tokens(step), step.probability) for step in steps]
    mass = sum(probability for _, probability in possible)
    result = []
    for position, token in enumerate(tokens):
        possible = [entry for entry in possible if len(entry[0]) > position and entry[0][position] == token]
        following = sum(probability for _, probability in possible)
        result.append(math.log(following / mass))
        mass = following
    return tuple(result)
