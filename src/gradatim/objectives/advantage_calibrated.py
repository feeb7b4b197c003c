"""Preferences between steps whose values are uncertain, calibrated by their advantages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import PositiveFloat

from gradatim.objectives.base import Loss
from gradatim.objectives.preference import PairObjective, reward_metrics
from gradatim.part import part
from gradatim.supervision.terms import Term, parted

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class AdvantageCalibrated(PairObjective):
    r"""Push the rejected side away by how much worse it is estimated (Genius' ACO, Xu et al., 2025, arXiv:2504.08672).

    .. math:: L = -\log \sigma\left(\beta \Delta(s^c) - \beta f \Delta(s^r)\right), \qquad
              f = \max\left(1, \exp \frac{A_c - A_r}{\alpha}\right)

    for the log-ratios :math:`\Delta` of policy and reference on the two sides from where they part, and their
    advantages :math:`A`, the targets. Only their difference counts, so values after one prefix serve as well. A pair
    whose rejected side is estimated the better one, as values that were told without a verifier may say, is a plain
    preference; so is every pair as :math:`\alpha \to \infty`, where the loss is DPO's. From the paper: a preference
    calibrated by advantages of foresight. The factor is that of its published code.
    """

    relaxation: PositiveFloat = 1.0
    r"""The difference of advantages that makes the factor e, :math:`\alpha`."""

    @property
    def needs_targets(self) -> bool:
        return True

    def prepared(self, term: Term) -> Term:
        return parted(super().prepared(term))

    def loss(self, quantities: Quantities) -> Loss:
        from torch.nn.functional import logsigmoid

        ratios = quantities.pairs(quantities.sums(quantities.log_probabilities - quantities.reference))
        advantages = quantities.pairs(quantities.target)
        factors = ((advantages[:, 0] - advantages[:, 1]) / self.relaxation).exp().clamp(min=1)
        losses = -logsigmoid(self.beta * (ratios[:, 0] - factors * ratios[:, 1]))
        return Loss(losses, {**reward_metrics(self.beta * ratios), "factors": factors})
