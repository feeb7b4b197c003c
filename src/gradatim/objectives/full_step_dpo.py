"""Preferences between whole solutions in which every step is pushed by how good it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat

from gradatim.errors import GradatimError
from gradatim.objectives.base import Loss
from gradatim.objectives.preference import PairObjective, dpo_loss, reward_metrics
from gradatim.part import part
from gradatim.supervision.terms import Term

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.objectives.quantities import Quantities


@part
class FullStepDpo(PairObjective):
    r"""Prefer a solution by the rewards of all its steps (Full-Step-DPO, Xu et al., 2025, arXiv:2502.14356).

    The value is DPO's loss of the two whole solutions; in its gradient, every step has a weight of its own:

    .. math:: \nabla L = -\beta\, \sigma(-h) \left[\sum_k w_k \nabla \log \pi(s^c_k) -
              \sum_k w_k \nabla \log \pi(s^r_k)\right], \qquad
              w_k = K \frac{e^{\pm \gamma q_k}}{\sum_j e^{\pm \gamma q_j}}

    for the rewards :math:`q` of the ``K`` steps of a side, with :math:`+` for the chosen solution, whose good steps are
    raised most, and :math:`-` for the rejected one, whose bad steps are lowered most; :math:`h` is DPO's difference of
    implicit rewards. A step that both share is pushed by the difference of its two weights. With equal rewards or
    :math:`\gamma = 0` it is DPO.

    From the paper: gradients of steps weighted by the rewards of a process reward model. From its published code: the
    softmax of :math:`\pm \gamma q`, and the weight of the pair, which is not weighted by steps. Ours: a softmax over
    steps, in the place of tokens; the code also weighs tokens by how far the policy has moved, and takes means.
    """

    needs_step_targets: ClassVar[bool] = True

    sharpness: NonNegativeFloat = 1.0
    r"""How much better rewards weigh more, :math:`\gamma`; at 0 all steps weigh the same."""

    def prepared(self, term: Term) -> Term:
        term = super().prepared(term)
        if any(math.isnan(reward) for group in term.groups for reward in group.targets):
            raise GradatimError(
                "a step of a pair of solutions has no reward to weigh it by; reward every step of both, or leave the "
                "pair out"
            )
        return term

    def loss(self, quantities: Quantities) -> Loss:
        steps = quantities.steps(quantities.log_probabilities)
        whole = quantities.groups(steps)
        pushed = whole.new_zeros(whole.shape).index_add(
            0, quantities.group_of, self._weights(quantities) * quantities.step_weight * steps[quantities.step_of]
        )
        values = quantities.pairs(whole.detach() + pushed - pushed.detach())  # the value of one, the gradient of other
        reference = quantities.pairs(quantities.sums(quantities.reference))
        losses = dpo_loss(values, reference, beta=self.beta)
        return Loss(losses, reward_metrics(self.beta * (values - reference)))

    def _weights(self, quantities: Quantities) -> Tensor:
        """How much each membership weighs in the gradient, (M,); 1 on average over a group."""
        import torch

        group_of, groups = quantities.group_of, quantities.target.shape[0]
        sides = 1 - 2 * (torch.arange(groups, device=group_of.device) % 2)  # the chosen one first
        exponents = self.sharpness * sides[group_of] * quantities.step_target
        largest = exponents.new_full((groups,), -torch.inf).scatter_reduce(0, group_of, exponents, "amax")
        shares = (exponents - largest[group_of]).exp()
        means = shares.new_zeros(groups).index_add(0, group_of, shares) / torch.bincount(group_of, minlength=groups)
        return shares / means[group_of]
