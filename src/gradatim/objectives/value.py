"""A value head beside the language model: how likely the solution will be right from here on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat

from gradatim.engine.head_shape import HeadShape
from gradatim.objectives.base import Loss
from gradatim.objectives.step_judgement import Judgement, Kind, aimed, judged
from gradatim.part import part

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class Value(Judgement):
    r"""Learn the values of steps with a head on the policy (AlphaMath, Chen et al., 2024, arXiv:2405.03553).

    The value is the sigmoid of the head at the step's last token, and lies between 0 and 1 as all values here do (in
    the paper it is a hyperbolic tangent, between -1 and 1, under a squared loss).

    Learned alone, values change what the policy writes, for the worse. With a likelihood term the policy learns too, as
    in the paper: terms that are aimed at nothing, such as those of `right_solutions`, are imitated,

    .. math:: L_i = (\sigma(z_i) - v_i)^2 \quad\text{or}\quad L_i = -\alpha \frac{\log \pi(y_i \mid x)}{|y_i|}

    for a step's value :math:`v` and a right solution :math:`y`. (They count as 0 in the metrics of values.)
    """

    heads: ClassVar[Mapping[str, HeadShape]] = {"value": HeadShape()}

    kind: Kind = "squared"
    """`squared` difference of value and target, or their `cross_entropy`."""
    nll: NonNegativeFloat = 0.0
    """Weight of the likelihood of what has no target, per token; 0 for a value head alone."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"log_probabilities"} if self.nll else ())

    @property
    def needs_targets(self) -> bool:
        return not self.nll

    def loss(self, quantities: Quantities) -> Loss:
        values = judged(quantities, "value", self.kind)
        if not self.nll:
            return values
        likelihood = quantities.terms(quantities.sums(quantities.log_probabilities))
        tokens = quantities.terms(quantities.groups(quantities.lengths)).clamp(min=1)
        imitated = -(likelihood / tokens).where(~aimed(quantities), 0.0)
        metrics = {**values.metrics, "negative_log_likelihood": imitated.detach()}
        return replace(values, per_term=values.per_term + self.nll * imitated, metrics=metrics)
