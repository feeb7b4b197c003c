"""Regression of advantages: how much likelier a step should become, and no more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat

from gradatim.objectives.advantaged import advantaged
from gradatim.objectives.base import Loss, Objective
from gradatim.part import part
from gradatim.supervision.terms import Term

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class DirectAdvantage(Objective):
    r"""Regress log-ratios of steps on their advantages (Direct Advantage, Liu et al., 2024, arXiv:2412.18279).

    .. math:: L_i = \frac{1}{2 |i|} \sum_{s \in i} \left(\frac{A_s}{\beta} - \log \frac{\pi(s)}{\rho(s)}\right)^2

    for the advantage :math:`A_s` of each of the :math:`|i|` steps :math:`s` of term :math:`i` (or the term's target,
    for all of its steps), the policy :math:`\pi`, and the reference :math:`\rho`; log-probabilities are sums over a
    step's tokens. Steps whose advantage is not known count for nothing. In the paper a term is one step, its advantage
    is how much higher a critic values it than the mean of the steps drawn in its place, each different one counted
    once, and places where these differ by less than 0.1 are left out: the construction `sibling_advantages` with
    `normalize: mean` and `min_gap: 0.1`, which counts a step as often as it was drawn. The critic is trained apart,
    before.

    Unlike a policy gradient it has an aim: a step's log-ratio is to be :math:`A_s / \beta`, and is pulled back beyond.
    At the reference its gradient is the plain policy gradient over :math:`\beta`; as :math:`\beta` grows, all that is
    left is to stay there. Where all steps that could come are weighed as the reference draws them, :math:`-\beta` times
    its gradient at the reference is that of what the policy gains,
    :math:`\mathbb{E}_\pi[A] - \beta \operatorname{KL}(\pi \| \rho)`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"log_probabilities", "reference"})
    needs_targets: ClassVar[bool] = True
    groups: ClassVar[int | None] = 1

    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference, in units of the advantages."""

    def prepared(self, term: Term) -> Term:
        return replace(term, groups=(advantaged(super().prepared(term)),))

    def loss(self, quantities: Quantities) -> Loss:
        ratios = quantities.steps(quantities.log_probabilities - quantities.reference)[quantities.step_of]
        advantages = quantities.step_target.nan_to_num()
        errors = (advantages / self.beta - ratios).square() / 2
        weights = quantities.step_weight
        sizes = quantities.by_term(weights.abs())
        found = {"advantage": advantages, "log_ratio": ratios, "agreement": ((advantages > 0) == (ratios > 0)).float()}
        metrics = {name: quantities.by_term(of.detach() * weights) / sizes for name, of in found.items()}
        return Loss(quantities.by_term(errors * weights) / sizes, metrics)
