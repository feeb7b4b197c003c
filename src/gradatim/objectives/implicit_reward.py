"""Outcome rewards that are log-ratios of two language models, so that every step has one for free."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat

from gradatim.objectives.base import Loss
from gradatim.objectives.step_judgement import SolutionJudgement, judgement_loss
from gradatim.part import part

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class ImplicitReward(SolutionJudgement):
    r"""Learn outcomes as log-ratios to a reference (Free Process Rewards, Yuan et al., 2024, arXiv:2412.01981).

    .. math:: r = \beta \log \frac{\pi(y \mid x)}{\rho(y \mid x)}, \qquad
              L_i = -o \log \sigma(r) - (1 - o) \log \sigma(-r)

    for a whole solution :math:`y` of the prompt :math:`x`, its outcome :math:`o`, the model :math:`\pi` and the
    reference :math:`\rho`, which it is at first. As :math:`r` is a sum over steps, :math:`\beta \log (\pi / \rho)` of a
    step alone is its process reward, learned without a label of a step; the scorer `implicit` reads it. At the
    reference the terms of a right and of a wrong solution of one prompt have together the gradient of DPO's loss of the
    pair.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"log_probabilities", "reference"})

    beta: PositiveFloat = 0.05
    """What a difference of log-likelihoods is worth, in units of the reward."""

    def loss(self, quantities: Quantities) -> Loss:
        ratios = quantities.sums(quantities.log_probabilities) - quantities.sums(quantities.reference)
        rewards, outcomes = self.beta * quantities.singles(ratios), quantities.singles(quantities.target)
        found = rewards.detach()
        metrics = {
            "accuracy": ((found > 0) == (outcomes > 0.5)).to(found.dtype),
            "rewards/mean": found,
        }
        return Loss(judgement_loss(rewards, outcomes), metrics)
