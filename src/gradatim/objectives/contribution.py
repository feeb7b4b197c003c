"""What each step contributes to the outcome: numbers that sum to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from gradatim.engine.head_shape import HeadShape
from gradatim.objectives.base import Loss
from gradatim.objectives.step_judgement import SolutionJudgement
from gradatim.part import part

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class Contribution(SolutionJudgement):
    r"""Learn contributions of steps that sum to the outcome (SPA-RL, Wang et al., 2025, arXiv:2505.20732).

    .. math:: L_i = \left(\sum_t c_t - o\right)^2

    for the outputs :math:`c_t` of the head `contribution` at the ends of a solution's steps and its outcome :math:`o`.
    No step has a label: what sets one step apart is that solutions share it, or steps like it, and end differently. Of
    solutions of one step it is the regression of outcomes. The scorer `value_head` with `head: contribution` and
    `output: raw` gives the contributions, with `accumulate: true` the progress so far.
    """

    width: PositiveInt | None = None
    """Width of a hidden layer in the head, as in the paper; `null` for a linear head."""

    @property
    def heads(self) -> Mapping[str, HeadShape]:
        return {"contribution": HeadShape(hidden=self.width)}

    def loss(self, quantities: Quantities) -> Loss:
        sums = quantities.singles(quantities.groups(quantities.heads["contribution"]))
        outcomes = quantities.singles(quantities.target)
        found = sums.detach()
        metrics = {
            "accuracy": ((found > 0.5) == (outcomes > 0.5)).to(found.dtype),
            "mean_outcome": outcomes,
            "mean_sum": found,
        }
        return Loss((sums - outcomes).square(), metrics)
