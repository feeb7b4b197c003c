"""Monte-Carlo tree search over steps: go where the values are high or little is known.

One simulation walks from the root to a step that was not expanded yet, by UCT or PUCT; expands it; values each of its
children; and counts each value as one visit of the child and of everything above it. So the visits of a node are its
own one and those of its children (the root's: those of its children), and its value is the mean over them.

Values and visits live in the tree (``node.scores["mcts"]``, ``node.counts["mcts"]``), so that a search over a tree that
was searched before goes on where that one stopped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf
from gradatim.search.ranking import checked_score
from gradatim.tree import Node, Tree

Rule = Literal["uct", "puct", "puct_uniform"]
KEY = "mcts"
"""Of mean values in ``node.scores``, and of visits in ``node.counts``."""


@part
class Mcts(Search):
    """Monte-Carlo tree search over steps (PUCT as in AlphaZero: Silver et al., 2017, arXiv:1712.01815).

    UCT is of Kocsis and Szepesvári (2006), PUCT of Rosin (2011), virtual loss of Chaslot et al.
    (*Parallel Monte-Carlo Tree Search*, 2008). Simulations run in waves: the steps of a wave are selected one after the
    other, each selection making its path less attractive for the next; then all are expanded and valued at once; then
    all values are backed up, in the order of selection. So the result does not depend on which one is finished first.

    Finished and cut-off steps are valued once, and no simulation goes where nothing is left to expand; the search ends
    early when that is everywhere. A cut-off solution is worth nothing. Children that the budget left without a value
    are not visited. The scorer's values go from 0 to 1; to grow trees to learn from, it is a
    :class:`gradatim.scorers.rollouts.RolloutScorer`, which gives a finished step the verifier's reward.
    """

    title: ClassVar[str] = "MCTS"
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("simulations",)

    simulations: PositiveInt = 32
    """Expansions in all."""
    branch: PositiveInt = 4
    """Steps that are proposed at each expansion."""
    wave: PositiveInt = 4
    """Simulations that run at the same time; 1 is the sequential algorithm."""
    rule: Rule = "puct"
    """How a step is selected: `uct`, `puct` with the policy's probabilities as priors, or `puct_uniform`."""
    exploration: NonNegativeFloat = 1.0
    """The constant of the rule: more explores more."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        guide = self._guide(scorer)
        state = _State(self.rule, self.exploration)
        state.resume(tree)
        done = 0
        while done < self.simulations and not tree.budget.spent:
            wave = state.select_wave(tree.root, min(self.wave, self.simulations - done))
            if not wave:
                break
            try:
                children = list(dict.fromkeys(await policy.extend(wave, self.branch, sampling=sampling)))
                await guide.score([child for child in children if _is_scored(child)])
            finally:
                state.release_wave(wave)
            for leaf in wave:
                values = [(child, _value(child, guide.name)) for child in children if child.parent is leaf]
                state.back_up(leaf, [(child, value) for child, value in values if value is not None])
            done += len(wave)


def uct(value: float, visits: float, parent_visits: float, exploration: float) -> float:
    """``value + exploration * sqrt(ln(parent_visits) / visits)``; infinite without visits."""
    if not visits:
        return math.inf
    return value + exploration * math.sqrt(math.log(max(parent_visits, 1)) / visits)


def puct(value: float, prior: float, visits: float, parent_visits: float, exploration: float) -> float:
    """``value + exploration * prior * sqrt(parent_visits) / (1 + visits)``."""
    return value + exploration * prior * math.sqrt(parent_visits) / (1 + visits)


def priors(siblings: Sequence[Node]) -> list[float]:
    """``[siblings]``: softmax of the mean log-probability per token, so that long steps are not at a disadvantage.

    Uniform where the policy's log-probabilities of a step are unknown, or the steps are of several policies.
    """
    sources = {node.step.source for node in siblings}
    if len(sources) > 1 or not all(node.step.log_probabilities for node in siblings):
        return [1 / len(siblings)] * len(siblings)
    means = [sum(node.step.log_probabilities) / len(node.step.log_probabilities) for node in siblings]
    largest = max(means, default=0.0)
    weights = [math.exp(mean - largest) for mean in means]
    total = sum(weights)
    return [weight / total for weight in weights]


def _is_scored(child: Node) -> bool:
    """Whether the scorer is asked what a new child is worth."""
    return child.open or child.finished


def _value(child: Node, scorer: str) -> float | None:
    """What a new child is worth; ``None`` if the budget left it unscored. A cut-off solution is worth nothing."""
    if not _is_scored(child):
        return 0.0
    return checked_score(child, scorer) if scorer in child.scores else None


@dataclass(slots=True)
class _State:
    """What one search knows besides the values and visits in the tree.

    Attributes:
        children: the valued children of each expanded node; the tree may hold others, of rollouts.
        prior: of each such child, among its siblings.
        virtual_losses: simulations under way through a node; each counts as a visit of value 0.
        blocked: nodes at and below which nothing can be selected: solutions, what is fully explored, what is under
            way.
        under_way: those of ``blocked`` that are so for the current wave only.
    """

    rule: Rule
    exploration: float
    children: dict[Node, list[Node]] = field(default_factory=dict)
    prior: dict[Node, float] = field(default_factory=dict)
    virtual_losses: Counter[Node] = field(default_factory=Counter)
    blocked: set[Node] = field(default_factory=set)
    under_way: list[Node] = field(default_factory=list)

    def resume(self, tree: Tree) -> None:
        """Take up what an earlier search left in the tree."""
        for node in tree.nodes:
            valued = [child for child in node.children if child.counts.get(KEY)]
            if valued:
                self._adopt(node, valued)

    def select_wave(self, root: Node, count: int) -> list[Node]:
        """Up to ``count`` different nodes to expand, each with a virtual loss on its path."""
        wave: list[Node] = []
        while len(wave) < count and root not in self.blocked:
            node = root
            while node in self.children:
                node = self._select_child(node)
            self.virtual_losses.update(node.path())
            self.under_way.extend(self._block(node))
            wave.append(node)
        return wave

    def release_wave(self, wave: Sequence[Node]) -> None:
        """Take the wave's virtual losses back."""
        for leaf in wave:
            for node in leaf.path():
                self.virtual_losses[node] -= 1
                if not self.virtual_losses[node]:
                    del self.virtual_losses[node]
        self.blocked.difference_update(self.under_way)
        self.under_way.clear()

    def back_up(self, leaf: Node, valued: Sequence[tuple[Node, float]]) -> None:
        """Count each child's value as a visit of the child and of all above it."""
        for child, value in valued:
            for node in child.path():
                visits = node.counts.get(KEY, 0) + 1
                mean = node.scores.get(KEY, 0.0)
                node.counts[KEY] = visits
                node.scores[KEY] = mean + (value - mean) / visits
        self._adopt(leaf, [child for child, _ in valued])

    def _adopt(self, node: Node, valued: list[Node]) -> None:
        self.children[node] = valued
        shares = [1 / len(valued) for _ in valued] if self.rule == "puct_uniform" else priors(valued)
        self.prior.update(zip(valued, shares, strict=True))
        for child in valued:
            if not child.open:
                self._block(child)
        self._block(node)

    def _block(self, node: Node | None) -> list[Node]:
        """Block ``node`` if nothing is left below it, then so its ancestors; returns those newly blocked."""
        newly: list[Node] = []
        while node is not None and node not in self.blocked:
            if not all(child in self.blocked for child in self.children.get(node, ())):
                break
            self.blocked.add(node)
            newly.append(node)
            node = node.parent
        return newly

    def _select_child(self, node: Node) -> Node:
        """The most promising child that is not blocked; of equals, the first."""
        parent_visits = self._visits(node)
        open_children = [child for child in self.children[node] if child not in self.blocked]
        return max(open_children, key=lambda child: self._promise(child, parent_visits))

    def _promise(self, child: Node, parent_visits: int) -> float:
        visits = self._visits(child)
        value = child.scores[KEY] * child.counts[KEY] / visits
        if self.rule == "uct":
            return uct(value, visits, parent_visits, self.exploration)
        return puct(value, self.prior[child], visits, parent_visits, self.exploration)

    def _visits(self, node: Node) -> int:
        return node.counts.get(KEY, 0) + self.virtual_losses[node]
