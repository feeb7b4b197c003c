"""Preferences in which each token may move as far as a token reward allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

from gradatim.objectives.base import Loss
from gradatim.objectives.preference import PairObjective, reward_metrics
from gradatim.part import part
from gradatim.supervision.terms import Term, parted

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class Tgdpo(PairObjective):
    r"""Guide a preference by implicit rewards of tokens (TGDPO, Zhu et al., 2025, arXiv:2506.14574).

    .. math:: L = -\log \sigma\left(\beta \sum_{t \in c} (1 + \alpha \hat{r}_t) \Delta_t -
              \beta \sum_{t \in r} (1 - \alpha \hat{r}_t) \Delta_t\right), \qquad
              \hat{r}_t = \beta \log \frac{\hat{\pi}_t}{\rho_t}, \quad \Delta_t = \log \frac{\pi_t}{\rho_t}

    over the tokens of the chosen and of the rejected side, for policy :math:`\pi`, reference :math:`\rho` and a guide
    :math:`\hat{\pi}`, which was trained by DPO before: it is a token's reward how much likelier the guide finds it (the
    view of Rafailov et al., "From r to Q*", 2024, arXiv:2404.12358, and of the dense rewards of RTO, Zhong et al.,
    2024, arXiv:2404.18922). Good tokens of the chosen side and bad ones of the rejected side may move further. With
    :math:`\alpha = 0`, or a guide that is the reference, it is DPO.

    The guide is who wrote the steps, as in the paper, where trees of a policy that was trained by DPO are learned from
    with another reference (`reference: initial` of a model that was not); or the policy itself as it is by then, which
    is ours, and begins as the paper's where DPO on the same trees came before. Sides are compared from where their
    paths part.
    """

    guidance: NonNegativeFloat = 0.5
    r"""How much token rewards count, :math:`\alpha`."""
    guide: Literal["policy", "behaviour"] = "policy"
    """Whose preferences are a token's reward: the `policy`'s, as it is while it learns, or those of the policy that
    wrote the step (`behaviour`)."""

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | ({"behaviour"} if self.guide == "behaviour" else set())

    def prepared(self, term: Term) -> Term:
        return parted(super().prepared(term))

    def loss(self, quantities: Quantities) -> Loss:
        from torch.nn.functional import logsigmoid

        guide = quantities.behaviour if self.guide == "behaviour" else quantities.log_probabilities.detach()
        ratios = quantities.log_probabilities - quantities.reference
        hints = self.guidance * self.beta * (guide - quantities.reference)
        chosen = quantities.pairs(quantities.sums((1 + hints) * ratios))[:, 0]
        rejected = quantities.pairs(quantities.sums((1 - hints) * ratios))[:, 1]
        rewards = self.beta * quantities.pairs(quantities.sums(ratios))
        return Loss(-logsigmoid(self.beta * (chosen - rejected)), reward_metrics(rewards))
