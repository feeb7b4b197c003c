"""Advantages as what a step changes: its value less that of what it continues."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import FiniteFloat

from gradatim.part import part
from gradatim.supervision.advantages import Advantages, Relative, Rewards, kept
from gradatim.supervision.terms import Term, labelled_step
from gradatim.supervision.values import StepValues
from gradatim.tree import Node, Tree


@part
class ValueAdvantages(Relative, Rewards, StepValues, Advantages):
    r"""What a step adds to the value of its prefix (PAV, Setlur et al., 2024, arXiv:2410.08146).

    .. math:: A(s) = \alpha \left[ V(s) - V(\text{before } s) \right] + u \, r(s) + w \, \hat R(s)

    for any score as the value :math:`V`, the step's own reward :math:`r` where one is named, and, with a weight, the
    mean of the relative rewards of the solutions below the step, each as often as it was drawn. With a prover's value
    that is the effective reward of process advantage verifiers, progress beside the outcome (in the paper the outcome
    part is the policy's own value; here it is estimated from the solutions of the tree and made relative). With the
    policy's own exact value and no more it is the advantage itself, and with `backup` what `generalized_advantages`
    gives each step with ``trace: 0``. A finished step's value is what the score says of it. A term is one step, weighed
    by how often it was drawn; they come in the order of ``tree.nodes``.
    """

    asks: ClassVar[str] = "no step has another value than the step before it"

    value_weight: FiniteFloat = 1.0
    """How much a change of the value counts."""
    reward_weight: FiniteFloat = 0.0
    """How much the rewards of the solutions below a step count."""

    def __call__(self, tree: Tree) -> list[Term]:
        outcomes = self._outcomes(tree) if self.reward_weight else {}
        return kept(self._terms(tree, outcomes))

    def _terms(self, tree: Tree, outcomes: dict[Node, float]) -> Iterable[Term]:
        for step in self.valued(tree.nodes[1:]):
            before = self.before(step)
            if before is None or (self.step_reward is not None and self.step_reward not in step.scores):
                continue
            advantage = self.value_weight * (step.scores[self.value] - before)
            advantage += self.reward_weight * outcomes.get(step, 0.0)
            if self.step_reward is not None:
                advantage += self.step_reward_weight * step.scores[self.step_reward]
            yield labelled_step(step, advantage, float(step.multiplicity))

    def _outcomes(self, tree: Tree) -> dict[Node, float]:
        """The mean relative reward of the solutions below each step that has any."""
        solutions = self.solutions(tree)
        rewards = self.relative([each.outcome for each in solutions], [each.count for each in solutions])
        sums: dict[Node, float] = {}
        counts: dict[Node, int] = {}
        for each, reward in zip(solutions, rewards, strict=True):
            for step in each.steps:
                sums[step] = sums.get(step, 0.0) + each.count * reward
                counts[step] = counts.get(step, 0) + each.count
        return {step: total / counts[step] for step, total in sums.items()}
