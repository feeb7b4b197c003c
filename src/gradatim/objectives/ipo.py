"""Preferences with a margin that is enough, so that the policy is not driven on and on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradatim.objectives.base import Loss
from gradatim.objectives.preference import PairObjective, reward_metrics
from gradatim.part import part
from gradatim.supervision.terms import Term, parted

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class Ipo(PairObjective):
    r"""Prefer by just so much, by a squared loss (IPO, Azar et al., 2023, arXiv:2310.12036).

    .. math:: L = \left(\Delta(s^c) - \Delta(s^r) - \frac{1}{2 \beta}\right)^2, \qquad
              \Delta(s) = \frac{1}{|s|} \log \frac{\pi(s \mid p)}{\rho(s \mid p)}

    with prefix :math:`p`, chosen and rejected side :math:`s^c, s^r` from where their paths part, policy :math:`\pi` and
    reference :math:`\rho`; :math:`\beta` is the paper's :math:`\tau`. Where DPO asks for ever more, this is least at a
    difference of :math:`1 / (2 \beta)`. The mean over tokens is TRL's, who confirmed it with the authors; the paper
    writes the sum.
    """

    per_token: bool = True
    """Whether log-ratios are means over the tokens of a side, or their sums."""

    def prepared(self, term: Term) -> Term:
        return parted(super().prepared(term))

    def loss(self, quantities: Quantities) -> Loss:
        ratios = quantities.pairs(quantities.sums(quantities.log_probabilities - quantities.reference))
        compared = ratios
        if self.per_token:
            compared = ratios / quantities.pairs(quantities.groups(quantities.lengths)).clamp(min=1)
        losses = (compared[:, 0] - compared[:, 1] - 1 / (2 * self.beta)).square()
        return Loss(losses, reward_metrics(self.beta * ratios))
