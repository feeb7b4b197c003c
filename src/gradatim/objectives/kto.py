"""Good and bad steps without pairs, each against what the policy has gained on the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat, PositiveFloat

from gradatim.errors import GradatimError
from gradatim.objectives.base import Loss, Objective
from gradatim.part import name_of, part
from gradatim.supervision.terms import Term

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.objectives.quantities import Quantities


def kto_loss(
    ratios: Tensor,
    desirable: Tensor,
    reference_point: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    r"""How far steps are from being worth more, or less, than the reference point.

    .. math:: \lambda_D \left(1 - \sigma(\beta (\Delta - z))\right) \quad\text{or}\quad
              \lambda_U \left(1 - \sigma(\beta (z - \Delta))\right)

    Args:
        ratios: (G,) log-ratios of policy and reference, :math:`\Delta`.
        desirable: (G,) whether each is good.
        reference_point: (G,) or one for all, :math:`z`.
        beta: how strongly the policy is held to the reference.
        desirable_weight, undesirable_weight: :math:`\lambda_D, \lambda_U`.

    Returns:
        (G,) one loss for each.
    """
    import torch

    above = beta * (ratios - reference_point)
    good, bad = desirable_weight * (-above).sigmoid(), undesirable_weight * above.sigmoid()
    return torch.where(desirable, good, bad)


def reference_points(ratios: Tensor) -> Tensor:
    r"""How far the policy has moved from the reference, by the others of some steps after one prefix.

    .. math:: z_j = \max\left(0, \frac{\sum_{i \ne j} r_i \log r_i}{\sum_{i \ne j} r_i}\right), \qquad
              r_i = \frac{\pi(s_i)}{\rho(s_i)}

    The steps were drawn from :math:`\rho`; weighted by :math:`r`, they stand for draws from :math:`\pi`, so that the
    mean of their log-ratios estimates :math:`\text{KL}(\pi \parallel \rho)` at the prefix. 0 for a step that has no
    others.

    Args:
        ratios: (n,) :math:`\log r`.

    Returns:
        (n,) of each step, without a gradient.
    """
    import torch

    ratios = ratios.detach()
    if len(ratios) == 1:
        return torch.zeros_like(ratios)
    itself = torch.eye(len(ratios), dtype=torch.bool, device=ratios.device)
    weights = ratios.expand(len(ratios), -1).masked_fill(itself, -torch.inf).softmax(dim=1)
    return (weights @ ratios).relu()


@part
class Kto(Objective):
    r"""Make good steps likelier and bad ones less likely, unpaired (KTO, Ethayarajh et al., 2024, arXiv:2402.01306).

    .. math:: L = \frac{1}{n} \sum_j \begin{cases}
              \lambda_D \left(1 - \sigma(\beta (\Delta_j - z_j))\right) & \text{target above the threshold} \\
              \lambda_U \left(1 - \sigma(\beta (z_j - \Delta_j))\right) & \text{else} \end{cases}

    for the ``n`` groups of a term and the log-ratios :math:`\Delta` of policy and reference. The paper estimates the
    reference point :math:`z`, the policy's divergence from the reference, from completions that are put behind the
    prompts of others in the batch. A tree has better ones at no cost: of a ranking (`sibling_lists`, `solution_lists`),
    the others after the same prefix (:func:`reference_points`). Each of them counts once there, however often it was
    drawn, and few draws underestimate a large divergence. A term of one group (`solution_labels`,
    or `step_labels`, from labels of steps as in STEVE, Lu et al., 2025, arXiv:2503.12532) has no others, and
    :math:`z = 0`, which is `apo_zero_unpaired` in TRL. The loss of a term does not depend on what else is in its batch.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"log_probabilities", "reference"})

    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    threshold: float = 0.5
    """Above which target a step is good."""
    desirable_weight: NonNegativeFloat = 1.0
    """How much good steps count. All together they should count as the bad ones do, or a little more: where bad ones
    prevail, everything that was sampled gets less likely, and soon nothing is right."""
    undesirable_weight: NonNegativeFloat = 1.0
    """How much the others count."""

    @property
    def needs_targets(self) -> bool:
        return True

    def prepared(self, term: Term) -> Term:
        term = super().prepared(term)
        if not term.targets:
            raise GradatimError(
                f"the objective {name_of(self)!r} learns which steps are good as a whole, and a term does not say it; "
                "take a construction such as step_labels or solution_labels"
            )
        return term

    def loss(self, quantities: Quantities) -> Loss:
        import torch

        ratios = quantities.sums(quantities.log_probabilities - quantities.reference)
        points = torch.cat([reference_points(each) for each in quantities.lists(ratios)])
        desirable = quantities.target > self.threshold
        losses = kto_loss(
            ratios,
            desirable,
            points,
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        found = ratios.detach()
        measured = {
            "rewards/mean": self.beta * found,
            "rewards/accuracies": ((found > points) == desirable).to(found.dtype),
            "divergence": points,
        }
        count = quantities.terms(torch.ones_like(found))
        return Loss(
            quantities.terms(losses) / count, {name: quantities.terms(of) / count for name, of in measured.items()}
        )
