"""Step-level value preference optimization: a policy and its value head, learned from the same pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat

from gradatim.engine.head_shape import HeadShape
from gradatim.objectives.base import Loss
from gradatim.objectives.preference import Preference
from gradatim.objectives.ranking import comparison_loss
from gradatim.objectives.step_judgement import check_targets
from gradatim.part import part
from gradatim.supervision.terms import Term, parted

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class Svpo(Preference):
    r"""Step preferences with a value head that ranks as they do (SVPO, Chen et al., 2024, arXiv:2406.10858).

    .. math:: L = L_\text{Step-DPO} + \lambda \max(0, g - (v_c - v_r))
              + \frac{\mu}{2} \left[(v_c - q_c)^2 + (v_r - q_r)^2\right]

    for the values :math:`v = \sigma(z)` of the head at the end of the chosen and the rejected step, and their values
    :math:`q` in the tree. From the paper: preferences between steps of one tree, a value model on the same weights that
    learns to rank as the implicit reward does by a margin loss on these pairs, and a squared loss to the values of the
    tree. Not from the paper, which could not be read as far as its equations: the constants, the equal weights, and
    the sigmoid in the place of a hyperbolic tangent, since values lie between 0 and 1 here.
    """

    heads: ClassVar[Mapping[str, HeadShape]] = {"value": HeadShape()}

    ranking: NonNegativeFloat = 1.0
    """Weight of the ranking loss of the values."""
    gap: NonNegativeFloat = 0.25
    """By how much the value of the chosen step should be higher."""
    regression: NonNegativeFloat = 1.0
    """Weight of the squared difference to the values of the tree; 0 needs none."""

    @property
    def needs_targets(self) -> bool:
        return self.margin > 0 or self.regression > 0

    def prepared(self, term: Term) -> Term:
        term = super().prepared(term)
        check_targets(term)
        return parted(term)

    def loss(self, quantities: Quantities) -> Loss:
        preference = super().loss(quantities)
        values = quantities.pairs(quantities.ends(quantities.heads["value"])).sigmoid()
        losses = preference.per_term + self.ranking * comparison_loss(values[:, 0] - values[:, 1], self.gap, "hinge")
        if self.regression:
            differences = values - quantities.pairs(quantities.target)
            losses = losses + self.regression * differences.square().mean(dim=1)
        found = values.detach()
        metrics = {
            "values/chosen": found[:, 0],
            "values/rejected": found[:, 1],
            "values/accuracies": (found[:, 0] > found[:, 1]).to(found.dtype),
        }
        return Loss(losses, {**preference.metrics, **metrics})
