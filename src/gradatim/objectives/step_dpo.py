"""Direct preference optimization over single steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gradatim.objectives.dpo import PairObjective
from gradatim.supervision.pairs import StepPair
from gradatim.supervision.terms import Example, parting_steps


@dataclass(frozen=True, slots=True)
class StepDpo(PairObjective):
    r"""Prefer a step to its sibling, given the prefix that they share.

    .. math:: L = - \frac{\sum_i w_i \log \sigma(\beta [\Delta(s^c_i \mid p_i) - \Delta(s^r_i \mid p_i)] - m_i)}
              {\sum_i w_i}, \qquad \Delta(s \mid p) = \log \pi(s \mid p) - \log \rho(s \mid p)

    with prefix :math:`p`, chosen and rejected step :math:`s^c, s^r`, policy :math:`\pi`, reference :math:`\rho`,
    weight :math:`w` and margin :math:`m`; label smoothing and likelihood term as in
    :func:`~gradatim.objectives.dpo.dpo_loss`. Lai et al., "Step-DPO: Step-wise Preference Optimization for
    Long-chain Reasoning of LLMs" (2024).
    """

    def examples(self, pairs: Iterable[StepPair]) -> list[Example]:
        """One example per pair: siblings, or any two nodes of a tree, compared from where their paths part.

        Raises:
            GradatimError: if a pair's nodes are of different trees, or one lies on the other's path.
        """
        return [Example(parting_steps(pair.chosen, pair.rejected), pair.weight, pair.margin) for pair in pairs]
