"""A policy and a soft value that satisfy the soft Bellman equation together, from solutions and their outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import NonNegativeFloat, PositiveFloat

from gradatim.engine.head_shape import HeadShape
from gradatim.objectives.base import Loss
from gradatim.objectives.step_judgement import SolutionJudgement
from gradatim.part import part

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.objectives.quantities import Quantities

HEAD = "soft_value"
Level = Literal["token", "step", "solution"]


class _Actions(NamedTuple):
    """What a solution is made of, in the order of the paths, for ``A`` actions.

    Attributes:
        group (``A``): the solution of each.
        weight (``A``): how much it counts in the mean over its solution.
        ratio (``A``): its log-probability less that under the reference.
        value (``A``): what the head says of where it is taken.
    """

    group: Tensor
    weight: Tensor
    ratio: Tensor
    value: Tensor


@part
class Oreo(SolutionJudgement):
    r"""A policy and its soft value, learned offline (OREO, Wang et al., 2024, arXiv:2412.16145).

    The optimum under a penalty :math:`\beta` on leaving the reference satisfies
    :math:`V(s_t) = R - \beta \sum_{i \ge t} \log \frac{\pi(a_i)}{\rho(a_i)}` at every state :math:`s_t` of a solution
    with the outcome :math:`R`. For its :math:`T` actions, with :math:`r_i = \log \frac{\pi(a_i)}{\rho(a_i)}` and
    :math:`\bar{\cdot}` where no gradient goes,

    .. math:: L = \frac{1}{T} \sum_{t=1}^{T}
              \Big(\bar V(s_t) - R + \beta r_t + \beta \sum_{i > t} \bar r_i\Big)^2
              + \frac{\lambda}{T + 1} \sum_{t=1}^{T+1} \Big(V(s_t) - R + \beta \sum_{i \ge t} \bar r_i\Big)^2 + \alpha K

    The actions are tokens, steps, or the whole solution. The value is what the head `soft_value` says as it is, of no
    fixed range: before an action, and at the solution's end. There, after :math:`T` actions, it is the outcome alone;
    this is ours, so that a search may compare a solution that has ended with one that has not. In the paper the value
    is a network of its own, without :math:`\lambda`, and :math:`K` the divergence from the reference over all tokens
    that could have come; here it is the mean over the solution's own tokens of
    :math:`\frac{\pi}{\rho} \log \frac{\pi}{\rho} - \frac{\pi}{\rho} + 1`, whose mean is that divergence where the
    reference sampled them.

    At the reference the policy's gradient is that of a policy gradient with the advantages :math:`R - V(s_t)`, times
    :math:`2 \beta`; for :math:`\beta \to 0` the value becomes the regression of outcomes. Both losses are 0 exactly at
    :math:`\pi \propto \rho\, e^{R / \beta}` and :math:`V = \beta \log \mathbb{E}_\rho\, e^{R / \beta}`, which lies
    between the least and the greatest outcome. The scorer `value_head` with `head: soft_value` and `output: raw` guides
    a search by the value.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"log_probabilities", "reference"})
    heads: ClassVar[Mapping[str, HeadShape]] = {HEAD: HeadShape()}

    level: Level = "token"
    """What an action is: a `token`, a `step`, or the whole `solution`, of which only the prompt is a state."""
    beta: PositiveFloat = 0.03
    """How strongly the policy is held to the reference, in units of the outcome."""
    value: PositiveFloat = 0.1
    """Weight of the loss of the value; a small one leaves the model below the head to the policy."""
    kl: NonNegativeFloat = 0.01
    """Weight of the divergence from the reference."""

    def loss(self, quantities: Quantities) -> Loss:
        ratios = quantities.log_probabilities - quantities.reference
        actions = self._actions(quantities, ratios)
        outcomes, ratio = quantities.target[actions.group], actions.ratio.detach()
        later = self.beta * quantities.later(ratio, actions.group)
        of_policy = (actions.value.detach() - outcomes + self.beta * actions.ratio + later).square()
        of_value = (actions.value - outcomes + self.beta * ratio + later).square()
        at_end = (quantities.ends(quantities.heads[HEAD]) - quantities.target).square()
        policy = quantities.singles(_sums(quantities, actions, of_policy) / _sums(quantities, actions))
        value = quantities.singles((_sums(quantities, actions, of_value) + at_end) / (_sums(quantities, actions) + 1))
        divergence = ratios.exp() * ratios - ratios.exp() + 1
        away = quantities.singles(quantities.sums(divergence)) / quantities.tokens().clamp(min=1)
        metrics = {
            "policy_error": policy,
            "value_error": value,
            "kl": away,
            "mean_value": quantities.singles(_sums(quantities, actions, actions.value) / _sums(quantities, actions)),
            "mean_outcome": quantities.singles(quantities.target),
        }
        losses = policy + self.value * value + self.kl * away
        return Loss(losses, {name: of.detach() for name, of in metrics.items()})

    def _actions(self, quantities: Quantities, ratios: Tensor) -> _Actions:
        """The actions of all solutions, from the log-ratios of tokens, (T,)."""
        import torch

        if self.level == "token":
            member, token = quantities.by_member()
            group, weight = quantities.group_of[member], quantities.step_weight[member]
            return _Actions(group, weight, ratios[token], quantities.heads[f"tokens:{HEAD}"][token])
        before = quantities.heads[f"before:{HEAD}"]
        group, ratio = quantities.group_of, quantities.steps(ratios)[quantities.step_of]
        if self.level == "step":
            return _Actions(group, quantities.step_weight, ratio, before[quantities.step_of])
        whole = ratio.new_zeros(quantities.target.shape[0]).index_add(0, group, ratio)
        solutions = torch.arange(whole.shape[0], device=whole.device)
        return _Actions(solutions, torch.ones_like(whole), whole, quantities.begins(before))


def _sums(quantities: Quantities, actions: _Actions, of: Tensor | float = 1.0) -> Tensor:
    """Sum a quantity of actions, (A,), over each solution by their weights: (G,); without one, the weights alone."""
    sums = actions.ratio.new_zeros(quantities.target.shape[0])
    return sums.index_add(0, actions.group, (actions.weight * of).to(sums.dtype))
