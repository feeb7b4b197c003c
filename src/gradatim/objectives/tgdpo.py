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

    over the tokens of the chosen and of the rejected side from where they part, for the policy :math:`\pi`, a reference
    :math:`\rho`, and a guide :math:`\hat{\pi}`, which was trained by DPO before: a token's reward is how much likelier
    the guide finds it (the view of Rafailov et al., "From r to Q*", 2024, arXiv:2404.12358, and of the dense rewards of
    RTO, Zhong et al., 2024, arXiv:2404.18922). Good tokens of the chosen side and bad ones of the rejected side may
    move further. With :math:`\alpha = 0`, or where guide and reference are one, it is DPO.

    Two policies are known of a step, and one of them is the guide. After a training by DPO on the same trees, with
    `reference: initial`, it is the model as it is then, and the reference is the one that wrote the trees. For trees
    that a policy wrote that was trained by DPO before, it is that one (`behaviour`), as in the paper, whose policy
    begins as the reference. Ours: no factor is below 0, so that no token is pushed the wrong way.
    """

    guidance: NonNegativeFloat = 0.5
    r"""How much token rewards count, :math:`\alpha`."""
    guide: Literal["reference", "behaviour"] = "reference"
    """Whose preferences are rewards of tokens: those of the `reference` as the training names it, or of the policy that
    wrote the step (`behaviour`); the other one of the two is what the policy is held to."""

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {"behaviour"}

    def prepared(self, term: Term) -> Term:
        return parted(super().prepared(term))

    def loss(self, quantities: Quantities) -> Loss:
        from torch.nn.functional import logsigmoid

        guide, held_to = quantities.reference, quantities.behaviour
        if self.guide == "behaviour":
            guide, held_to = held_to, guide
        ratios = quantities.log_probabilities - held_to
        hints = self.guidance * self.beta * (guide - held_to)
        chosen = quantities.pairs(quantities.sums((1 + hints).clamp(min=0) * ratios))[:, 0]
        rejected = quantities.pairs(quantities.sums((1 - hints).clamp(min=0) * ratios))[:, 1]
        rewards = self.beta * quantities.pairs(quantities.sums(ratios))
        return Loss(-logsigmoid(self.beta * (chosen - rejected)), reward_metrics(rewards))
