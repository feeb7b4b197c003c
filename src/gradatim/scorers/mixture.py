"""Several scorers in one number: their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from gradatim.errors import GradatimError
from gradatim.part import PartOf, part
from gradatim.scorers.aggregation import log_odds
from gradatim.scorers.base import Context, Scorer, ScorerPart
from gradatim.scorers.wrapper import Wrapper, WrapperPart
from gradatim.tree import Node

Scale = Literal["scores", "logarithms", "logits"]
_LEAST = 1e-12  # scores are taken to be no smaller than this, so that their logarithms are finite


@part
class MixturePart(WrapperPart):
    """A weighted sum of several scorers, such as likelihood and a discriminator (GRACE, 2023, arXiv:2305.14934)."""

    scorers: tuple[Annotated[ScorerPart, PartOf("scorers")], ...] = Field(min_length=1)
    """The scorers."""
    weights: tuple[FiniteFloat, ...] = ()
    """What each counts, of any sign; all alike and 1 in all by default."""
    scale: Scale | tuple[Scale, ...] = "scores"
    """What is summed: the `scores`, their `logarithms`, or their `logits`; one for all or one for each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, given in (("weights", self.weights), ("scales", self.scale)):
            if given and not isinstance(given, str) and len(given) != len(self.scorers):
                raise GradatimError(f"a mixture of {len(self.scorers)} scorers has {len(given)} {name}; give one each")

    def open(self, context: Context) -> MixtureScorer:
        count = len(self.scorers)
        one: Scale = self.scale if isinstance(self.scale, str) else "scores"
        scales = (one,) * count if isinstance(self.scale, str) else self.scale or (one,) * count
        inner = [each.open(context) for each in self.scorers]
        return MixtureScorer(self.name, inner, self.weights or (1 / count,) * count, scales)


class MixtureScorer(Wrapper):
    """Scores a step by the sum of ``weight * scale(score)`` over scorers.

    GRACE chooses the next step by ``(1 - b) log p(step) + b D(step)``: weights ``1 - b`` and ``b``, on the logarithm of
    the likelihood and the logit of the discriminator. Self-evaluation is mixed with outcomes on the scores.

    Args:
        name: the key in ``node.scores``.
        inner: the scorers.
        weights: one for each.
        scales: what is summed of each.
    """

    def __init__(self, name: str, inner: Sequence[Scorer], weights: Sequence[float], scales: Sequence[Scale]) -> None:
        super().__init__(name, inner)
        self.weights = tuple(weights)
        self.scales = tuple(scales)

    def combined(self, node: Node, scores: Sequence[float]) -> float:
        """Raises:
        GradatimError: if a score has no logarithm or no logit.
        """
        parts = zip(self.weights, self.scales, scores, strict=True)
        return math.fsum(weight * _scaled(score, scale) for weight, scale, score in parts)


def _scaled(score: float, scale: Scale) -> float:
    if scale == "scores":
        return score
    if scale == "logits":
        return log_odds(score)
    if score < 0:
        raise GradatimError(f"a score of {score} has no logarithm; mix this scorer on its scores")
    return math.log(max(score, _LEAST))
