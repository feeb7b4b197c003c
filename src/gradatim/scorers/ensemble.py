"""Several scorers in one number that is careful where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from gradatim.part import PartOf, part
from gradatim.scorers.base import Context, Scorer, ScorerPart
from gradatim.scorers.wrapper import Wrapper, WrapperPart
from gradatim.tree import Node

Rule = Literal["mean", "min", "lower_bound"]


@part
class EnsemblePart(WrapperPart):
    """The mean, the least or a lower bound of several scorers' scores (Coste et al., 2023, arXiv:2310.02743)."""

    scorers: tuple[Annotated[ScorerPart, PartOf("scorers")], ...] = Field(min_length=2)
    """The scorers."""
    rule: Rule = "min"
    """`mean`, `min` (worst-case optimisation) or `lower_bound`: the mean less what they disagree by."""
    deviations: NonNegativeFloat = 1.0
    """How many of their standard deviations a lower bound lies below the mean."""

    def open(self, context: Context) -> EnsembleScorer:
        return EnsembleScorer(self.name, [each.open(context) for each in self.scorers], self.rule, self.deviations)


class EnsembleScorer(Wrapper):
    """Scores a step by what several scorers agree on.

    A search that maximises one learned score finds its errors; where the members of an ensemble err differently, their
    minimum, or their mean less their spread, is high only where all of them are. (The paper's uncertainty-weighted
    objective takes off the variance; here it is the standard deviation, which has the unit of the scores.)

    Args:
        name: the key in ``node.scores``.
        inner: the scorers.
        rule: what is made of their scores.
        deviations: of a lower bound, in standard deviations over the scorers.
    """

    def __init__(self, name: str, inner: Sequence[Scorer], rule: Rule = "min", deviations: float = 1.0) -> None:
        super().__init__(name, inner)
        self.rule = rule
        self.deviations = deviations

    def combined(self, node: Node, scores: Sequence[float]) -> float:
        if self.rule == "min":
            return min(scores)
        return fmean(scores) - (self.deviations * pstdev(scores) if self.rule == "lower_bound" else 0.0)
