"""A value head beside the language model: how likely the solution will be right from here on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from gradatim.engine.head_shape import HeadShape
from gradatim.objectives.base import Loss
from gradatim.objectives.step_judgement import Judgement, Kind, judged
from gradatim.part import part

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class Value(Judgement):
    """Learn the values of steps with a head on the policy (AlphaMath, Chen et al., 2024, arXiv:2405.03553).

    The value is the sigmoid of the head at the step's last token, and lies between 0 and 1 as all values here do (in
    the paper it is a hyperbolic tangent, between -1 and 1, under a squared loss).
    """

    heads: ClassVar[Mapping[str, HeadShape]] = {"value": HeadShape()}

    kind: Kind = "squared"
    """`squared` difference of value and target, or their `cross_entropy`."""

    def loss(self, quantities: Quantities) -> Loss:
        return judged(quantities, "value", self.kind)
