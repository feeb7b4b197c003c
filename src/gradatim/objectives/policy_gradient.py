"""Policy gradients with an advantage for each step: the clipped surrogate of PPO and GRPO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat

from gradatim.engine.head_shape import HeadShape
from gradatim.errors import GradatimError
from gradatim.objectives.advantaged import advantaged
from gradatim.objectives.base import Loss, Objective, Unit
from gradatim.objectives.step_judgement import check_targets
from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.terms import Group, Term

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.objectives.quantities import Quantities

Ratio = Literal["token", "step", "solution"]
_NO_OUTCOME = (
    "the value head of 'policy_gradient' learns what whole solutions come to, which its terms do not say; take "
    "advantages of whole solutions (trajectory_advantages, generalized_advantages), or leave the option 'value' out"
)


def clipped_surrogate(ratios: Tensor, advantages: Tensor, low: float | None, high: float | None) -> Tensor:
    r"""The loss of each token by how much likelier it became (Schulman et al., *PPO*, 2017, arXiv:1707.06347).

    .. math:: -\min\left(\rho A, \operatorname{clip}(\rho, 1 - \epsilon_\text{low}, 1 + \epsilon_\text{high}) A\right)

    Args:
        ratios: (P,) of the probability to that when the token was sampled.
        advantages: (P,) of the token's step.
        low, high: how far the ratio may fall and rise before the gradient ends; ``None`` for any.
    """
    import torch

    bounded = ratios.clamp(-math.inf if low is None else 1 - low, math.inf if high is None else 1 + high)
    return -torch.minimum(ratios * advantages, bounded * advantages)


@part
class PolicyGradient(Objective):
    r"""Make better steps likelier by their advantages (GRPO, Shao et al., 2024, arXiv:2402.03300).

    .. math:: L_i &= \frac{1}{|i|} \sum_{s \in i} \sum_{t \in s} \left[\ell(\rho_t, A_s) + \beta \rho_t k_t\right], \\
              \rho_t &= \frac{\pi(t)}{\mu(t)}, \qquad k_t = \frac{\pi_0(t)}{\pi(t)} - \log \frac{\pi_0(t)}{\pi(t)} - 1

    for the clipped surrogate :math:`\ell` (:func:`clipped_surrogate`), the advantage :math:`A_s` of each step :math:`s`
    of term :math:`i` (or the term's target, for all of its steps), the policy :math:`\mu` that sampled the tokens, as
    the tree recorded it, and the reference :math:`\pi_0`. :math:`|i|` are the term's tokens with ``unit: terms``, so
    that terms count alike; with ``unit: tokens`` it is left out, and the mean is over the tokens of all terms, as in
    DAPO (Yu et al., 2025, arXiv:2503.14476), which also has ``clip_high`` above ``clip_low``. The ratio of a ``step``
    is the geometric mean of its tokens', and that of a ``solution`` that of all tokens of a term: sequence ratios as in
    GSPO (Zheng et al., 2025, arXiv:2507.18071), each token's gradient with its own step's advantage as in its token
    variant. Steps whose advantage is not known count for nothing.

    The divergence's factor :math:`\rho_t` is that of DeepSeek-V3.2 (DeepSeek-AI, 2025, arXiv:2512.02556), with which
    its gradient is that of the divergence of the policy from the reference; GRPO has none. With ``kl_confidence`` it is
    relaxed where the reference was unsure, as it is of the tokens that decide a solution (Vassoyan et al., *Ignore the
    KL Penalty!*, 2025, arXiv:2502.06533): its weight is a power of one less the entropy of the reference's next token
    over the largest possible. From the paper: that the penalty is weighed by the reference's certainty of each token;
    its constants could not be read.

    Where nothing is clipped and the policy is still the one that sampled, its gradient is the plain policy gradient,
    :math:`-\sum_t A_s \nabla \log \pi(t)` over the same size. A step that several terms share is run once and counts in
    each with that term's advantage, so that a tree has the loss and gradient of its paths apart.

    With ``value`` a head learns, beside the policy, what solutions come to: the mean of
    :math:`(\sigma(z_s) - R)^2` over the steps of a term that is a whole solution, for its outcome :math:`R` between 0
    and 1, times ``value``.
    """

    groups: ClassVar[int | None] = 1

    clip_low: NonNegativeFloat | None = 0.2
    """How far a ratio may fall before the gradient of a worse step ends; `null` for any."""
    clip_high: NonNegativeFloat | None = 0.2
    """How far a ratio may rise before the gradient of a better step ends; `null` for any."""
    ratio: Ratio = "token"
    """Whose ratio is clipped: each `token`'s, or the geometric mean over a `step` or a whole `solution`."""
    unit: Unit = "tokens"
    """What the loss is a mean over: `tokens`, or `terms`, solutions or steps that count alike however long."""
    kl: NonNegativeFloat = 0.0
    """Weight of the divergence from the reference; 0 needs none."""
    kl_unbiased: bool = True
    """Weigh a token's divergence by its ratio, so that its gradient is the divergence's own; without, as in GRPO."""
    kl_confidence: NonNegativeFloat = 0.0
    """By which power of how sure the reference was a token's divergence is weighed, so that the policy is free where it
    was not; 0 weighs all alike. Needs a reference from a model."""
    value: NonNegativeFloat = 0.0
    """Weight of a value head that learns what solutions come to; 0 for no head."""

    @property
    def needs(self) -> frozenset[str]:
        needed = {"log_probabilities", "behaviour"} | ({"reference"} if self.kl else set())
        return frozenset(needed | ({"confidence"} if self.kl and self.kl_confidence else set()))

    @property
    def heads(self) -> Mapping[str, HeadShape]:
        return {"value": HeadShape()} if self.value else {}

    @property
    def needs_targets(self) -> bool:
        return True

    def check(self, construction: Construction) -> None:
        super().check(construction)
        if self.value and not construction.has_step_targets:
            raise GradatimError(_NO_OUTCOME)

    def prepared(self, term: Term) -> Term:
        """The term from the first to the last step that has an advantage; steps between that have none weigh nothing.

        Raises:
            GradatimError: if no step has one, or a value head has nothing to learn from.
        """
        term = super().prepared(term)
        if self.value and not (term.targets and term.groups[0].targets):
            raise GradatimError(_NO_OUTCOME)
        if self.value:
            check_targets(Term((Group(term.groups[0].nodes),), targets=term.targets))
        return replace(term, groups=(advantaged(term),))

    def loss(self, quantities: Quantities) -> Loss:
        member, token = quantities.by_member()
        advantages = quantities.step_target.nan_to_num()[member]
        log_probabilities = quantities.log_probabilities[token]
        changes = self._pooled(quantities, member, log_probabilities - quantities.behaviour[token])
        ratios = changes.exp()
        losses = clipped_surrogate(ratios, advantages, self.clip_low, self.clip_high)
        found = {
            "ratio": ratios,
            "clip_fraction": self._is_clipped(ratios, advantages),
            "advantage": advantages,
        }
        if self.kl:
            behind = quantities.reference[token] - log_probabilities
            found["kl"] = behind.exp() - behind - 1
            held = found["kl"] * ratios if self.kl_unbiased else found["kl"]
            if self.kl_confidence:
                held = held * quantities.confidence[token] ** self.kl_confidence
            losses = losses + self.kl * held
        tokens = quantities.tokens().clamp(min=1e-12)
        sizes = tokens if self.unit == "tokens" else 1.0
        per_term = _sums(quantities, member, losses) / tokens * sizes
        metrics = {name: _sums(quantities, member, of.detach()) / tokens for name, of in found.items()}
        if self.value:
            values = quantities.heads["value"].sigmoid()[quantities.step_of]
            errors = (values - quantities.target[quantities.group_of]).square()
            weights = quantities.step_weight.abs()
            mean = quantities.by_term(errors * weights) / quantities.by_term(weights).clamp(min=1e-12)
            per_term = per_term + self.value * mean * sizes
            metrics["value_error"] = mean.detach()
        return Loss(per_term, metrics)

    def _pooled(self, quantities: Quantities, member: Tensor, changes: Tensor) -> Tensor:
        """The logarithm of each token's ratio, (P,), from the changes of log-probabilities, (P,): its own, or the mean
        over its step or solution, which its own gradient goes through."""
        if self.ratio == "token":
            return changes
        by_step = self.ratio == "step"
        scope, count = (member, quantities.step_of) if by_step else (quantities.group_of[member], quantities.target)
        sums = changes.new_zeros(count.shape[0]).index_add(0, scope, changes.detach())
        counts = changes.new_zeros(count.shape[0]).index_add(0, scope, changes.new_ones(changes.shape))
        return (sums / counts.clamp(min=1))[scope] + changes - changes.detach()

    def _is_clipped(self, ratios: Tensor, advantages: Tensor) -> Tensor:
        """Whether each token is past the bound on the side that its advantage points to, (P,), as a number."""
        low = math.inf if self.clip_low is None else self.clip_low
        high = math.inf if self.clip_high is None else self.clip_high
        worse, better = (ratios < 1 - low) & (advantages < 0), (ratios > 1 + high) & (advantages > 0)
        return (worse | better).to(ratios.dtype)


def _sums(quantities: Quantities, member: Tensor, of: Tensor) -> Tensor:
    """Sum a quantity of the tokens of memberships, (P,), over each term by the steps' weights: (N,)."""
    members = of.new_zeros(quantities.step_of.shape[0]).index_add(0, member, of)
    return quantities.by_term(members * quantities.step_weight)
