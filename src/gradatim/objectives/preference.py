"""What objectives over pairs share: the preference loss and its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat

from gradatim.objectives.base import Loss, Objective
from gradatim.part import options
from gradatim.supervision.terms import Term, check_pair

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.objectives.quantities import Quantities


def dpo_loss(
    log_probabilities: Tensor,
    reference: Tensor,
    *,
    beta: float,
    label_smoothing: float | Tensor = 0.0,
    nll: float = 0.0,
    lengths: Tensor | None = None,
    margins: Tensor | None = None,
) -> Tensor:
    r"""Preference loss of each pair.

    With :math:`h = \beta [(\log \pi_c - \log \rho_c) - (\log \pi_r - \log \rho_r)] - m` for policy :math:`\pi`,
    reference :math:`\rho`, chosen :math:`c`, rejected :math:`r` and margin :math:`m`:

    .. math:: L = -(1 - \epsilon) \log \sigma(h) - \epsilon \log \sigma(-h) - \alpha \frac{\log \pi_c}{|c|}

    Rafailov et al., "Direct Preference Optimization" (2023); :math:`\epsilon` is the label smoothing of Mitchell, "A
    note on DPO with noisy preferences" (2023); :math:`\alpha` the likelihood term of Pang et al., "Iterative Reasoning
    Preference Optimization" (2024); :math:`m` the offset of Amini et al., "Direct Preference Optimization with an
    Offset" (2024).

    Args:
        log_probabilities: (P, 2) of chosen and rejected, summed over tokens.
        reference: (P, 2) the same under the reference.
        beta: how strongly the policy is held to the reference.
        label_smoothing: probability that a preference is wrong, in [0, 0.5]; of all, or (P,) of each.
        nll: weight of the likelihood of the chosen side, per token.
        lengths: (P, 2) tokens; needed for the likelihood term.
        margins: (P,) how much better the chosen side has to be.

    Returns:
        (P,) one loss per pair.
    """
    from torch.nn.functional import logsigmoid

    ratios = log_probabilities - reference
    advantage = beta * (ratios[:, 0] - ratios[:, 1])
    if margins is not None:
        advantage = advantage - margins
    losses = -(1 - label_smoothing) * logsigmoid(advantage) - label_smoothing * logsigmoid(-advantage)
    if nll:
        if lengths is None:
            raise ValueError("the likelihood term needs the lengths of the chosen sides")
        losses = losses - nll * log_probabilities[:, 0] / lengths[:, 0].clamp(min=1)
    return losses


def reward_metrics(rewards: Tensor) -> dict[str, Tensor]:
    """What is logged of the implicit rewards of chosen and rejected sides, (P, 2): numbers for each pair, detached."""
    chosen, rejected = rewards.detach().unbind(dim=1)
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).to(rewards.dtype),
    }


@options
class PairObjective(Objective):
    """A loss of how much likelier than under a reference the chosen side of a pair is, and the rejected one."""

    groups: ClassVar[int | None] = 2

    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"log_probabilities", "reference"})

    def prepared(self, term: Term) -> Term:
        term = super().prepared(term)
        check_pair(term)
        return term


@options
class Preference(PairObjective):
    """Prefer the chosen side of a pair; subclasses differ in the steps that a pair compares."""

    smooths_labels: ClassVar[bool] = True

    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Probability that a preference is wrong, beside what a construction says of single pairs."""
    nll: NonNegativeFloat = 0.0
    """Weight of the likelihood of the chosen side, per token."""
    margin: NonNegativeFloat = 0.0
    """The difference of a pair's targets times this is the offset by which its chosen side has to be better."""

    @property
    def needs_targets(self) -> bool:
        return self.margin > 0

    def loss(self, quantities: Quantities) -> Loss:
        values = quantities.pairs(quantities.sums(quantities.log_probabilities))
        reference = quantities.pairs(quantities.sums(quantities.reference))
        targets = quantities.pairs(quantities.target)
        own = quantities.label_smoothing  # either of two independent reversals may have happened, and not both
        losses = dpo_loss(
            values,
            reference,
            beta=self.beta,
            label_smoothing=self.label_smoothing * (1 - own) + own * (1 - self.label_smoothing),
            nll=self.nll,
            lengths=quantities.pairs(quantities.groups(quantities.lengths)),
            margins=self.margin * (targets[:, 0] - targets[:, 1]) if self.margin else None,
        )
        return Loss(losses, reward_metrics(self.beta * (values - reference)))
