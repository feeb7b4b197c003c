"""What constructions of advantages share: the rewards of solutions, groups, and terms with an advantage for each step.

An advantage says how much better a step is than what the policy does otherwise. It stands in ``Group.targets``, one for
each step, or in ``Term.targets`` where a term is one step; of either sign and any size. The weight of a term stays how
often its steps were drawn. Terms of whole solutions say in ``Term.targets`` what the solution came to, which a value
head learns to expect.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Literal

from pydantic import FiniteFloat

from gradatim.part import options
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import advantage_rows
from gradatim.supervision.terms import Group, Term, labelled_step
from gradatim.supervision.values import StepValues, judged_ends
from gradatim.tree import Node, Tree

Normalization = Literal["std", "mean", "leave_one_out", "none"]
_ALIKE = 1e-9  # what differs by less, or by less than this share of its size, is what rounding leaves


class Advantages(Construction):
    """A construction whose terms say how much better than others steps are."""

    __slots__ = ()

    what: ClassVar[str] = "advantages"
    groups: ClassVar[int] = 1
    has_targets: ClassVar[bool] = True
    signed: ClassVar[bool] = True
    rows = staticmethod(advantage_rows)


@options
class Relative:
    """How an advantage is made of what each of a group came to."""

    normalize: Normalization = "std"
    """`std`: less the group's mean, over its standard deviation, as in GRPO; `mean`: less the mean alone (Liu et al.,
    *Dr. GRPO*, 2025, arXiv:2503.20783); `leave_one_out`: less the mean of the others (Ahmadian et al., *RLOO*, 2024,
    arXiv:2402.14740); `none`: as it is."""

    def relative(self, values: Sequence[float], counts: Sequence[int]) -> list[float]:
        """The advantages within one group; see :func:`relative`."""
        return relative(values, counts, self.normalize)


def relative(values: Sequence[float], counts: Sequence[int], normalize: Normalization = "std") -> list[float]:
    r"""What the members of a group are worth beside each other.

    .. math:: A_i = \frac{r_i - \bar r}{s}, \qquad \bar r = \frac{\sum_i n_i r_i}{n}, \qquad
              s^2 = \frac{\sum_i n_i (r_i - \bar r)^2}{n - 1}, \qquad n = \sum_i n_i

    with ``"std"``; with ``"mean"`` without :math:`s`; with ``"leave_one_out"`` times :math:`n / (n - 1)` in its place,
    which is :math:`r_i` less the mean of the other draws; with ``"none"`` it is :math:`r_i`. Where all are alike, as
    they are where there is but one, nothing is better than anything, and all are 0.

    Args:
        values: what each came to, ``r``.
        counts: how often each was drawn, ``n_i``.
        normalize: which of these.
    """
    if not values or max(values) - min(values) <= _ALIKE * max(1.0, *map(abs, values)):
        return [0.0] * len(values)
    if normalize == "none":
        return list(values)
    draws = sum(counts)
    mean = math.fsum(count * value for value, count in zip(values, counts, strict=True)) / draws
    centred = [value - mean for value in values]
    if normalize == "mean":
        return centred
    if normalize == "leave_one_out":
        return [each * draws / (draws - 1) for each in centred]
    squares = math.fsum(count * each**2 for each, count in zip(centred, counts, strict=True))
    deviation = math.sqrt(squares / (draws - 1))
    return [each / deviation for each in centred]


@options
class RelativeValues(Relative, StepValues):
    """Steps that are compared by their values."""

    def among(self, nodes: Iterable[Node]) -> Iterator[Term]:
        """Each of the nodes that has a value, with its advantage among them, by how often it was drawn; nothing where
        all have the same."""
        steps = self.valued(nodes)
        advantages = self.relative([step.scores[self.value] for step in steps], [step.multiplicity for step in steps])
        if any(advantages):
            for step, advantage in zip(steps, advantages, strict=True):
                yield labelled_step(step, advantage, float(step.multiplicity))


@dataclass(frozen=True, slots=True)
class Solution:
    """A solution that came to an end, and what it earned.

    Attributes:
        steps: from the first one to the last.
        rewards: what the verifier, or what stands for it, gave each step: nothing before the last one, unless an
            environment rewards steps on the way.
        extra: each step's own reward by a score, unweighted; zeros where none is named.
    """

    steps: tuple[Node, ...]
    rewards: tuple[float, ...]
    extra: tuple[float, ...]

    @property
    def end(self) -> Node:
        return self.steps[-1]

    @property
    def count(self) -> int:
        """How often it was drawn."""
        return self.end.multiplicity

    @property
    def outcome(self) -> float:
        """What the whole solution earned, without the steps' own rewards."""
        return math.fsum(self.rewards)

    def term(self, advantages: Iterable[float]) -> Term:
        """It as a term with an advantage for each step."""
        return Term((Group(self.steps, targets=tuple(advantages)),), float(self.count), (self.outcome,))


@options
class Rewards:
    """What solutions and steps earn."""

    reward: str | None = None
    """The score at a solution's end that is its reward, such as one that knows its length; `null` for the verifier's
    reward."""
    reward_weight: FiniteFloat = 1.0
    """How much that reward counts; 0 for steps' own rewards alone."""
    step_reward: str | None = None
    """The score that is each step's own reward, such as a prover's progress; `null` for none."""
    step_reward_weight: FiniteFloat = 1.0
    """How much it counts."""

    def solutions(self, tree: Tree) -> list[Solution]:
        """The solutions of a tree whose rewards are known, in the order of ``tree.nodes``.

        Those that a limit cut off have the reward that the verifier gave them, 0; those that the budget cut off, or
        that were left open, say nothing. One of whose steps any lacks the score that is its reward is left out.
        """
        found = []
        for leaf in judged_ends(tree):
            steps = tuple(leaf.path()[1:])
            last = leaf.reward if self.reward is None else leaf.scores.get(self.reward)
            if last is None or (self.step_reward is not None and any(self.step_reward not in s.scores for s in steps)):
                continue
            rewards = *((step.reward or 0.0) if self.reward is None else 0.0 for step in steps[:-1]), last
            extra = tuple(0.0 if self.step_reward is None else step.scores[self.step_reward] for step in steps)
            found.append(Solution(steps, rewards, extra))
        return found

    def earned(self, solution: Solution) -> list[float]:
        """What each step of a solution earned in all."""
        weights = self.reward_weight, self.step_reward_weight
        return [
            weights[0] * reward + weights[1] * extra
            for reward, extra in zip(solution.rewards, solution.extra, strict=True)
        ]


def returns(rewards: Sequence[float], discount: float = 1.0) -> list[float]:
    r"""What is earned from each step on, :math:`G_t = r_t + \gamma G_{t+1}`."""
    backwards = accumulate(reversed(rewards), lambda later, reward: reward + discount * later)
    return list(backwards)[::-1]


def kept(terms: Iterable[Term]) -> list[Term]:
    """The terms, or none of them where no step is better or worse than another."""
    found = list(terms)
    advantages = (each for term in found for each in term.groups[0].targets or term.targets)
    return found if any(abs(each) > _ALIKE for each in advantages) else []
