"""How the score of a partial or whole solution is made of those of its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from gradatim.errors import GradatimError

Aggregate = Literal["last", "min", "product", "mean", "log_odds", "softmin"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
SOFTMIN_TEMPERATURE = 0.1
"""Of the weights of a soft minimum: a step that is worse by this much weighs e times as much."""
_CERTAIN = 1e-6  # probabilities are taken to be no nearer to 0 and 1 than this, so that their odds are finite


def solution_score(scores: Sequence[float], aggregate: Aggregate = "last") -> float:
    """The score of a partial or whole solution from those of its steps, at least one.

    ``"last"`` takes the last step's; ``"min"``, ``"product"`` and ``"mean"`` combine all steps' (Lightman et al.,
    *Let's Verify Step by Step*, 2023, arXiv:2305.20050). ``"log_odds"`` is the sum of the logarithms of their odds:
    what independent judgements of one solution add up to, of either sign. ``"softmin"`` is their mean weighted by
    ``softmax(-score / 0.1)``: the least one wherever it stands out (Cheng et al., *Stop Summation*, 2025,
    arXiv:2504.15275).

    Raises:
        GradatimError: if ``"log_odds"`` is asked of a score that is no probability.
    """
    if aggregate == "last":
        return scores[-1]
    if aggregate == "min":
        return min(scores)
    if aggregate == "product":
        return math.prod(scores)
    if aggregate == "log_odds":
        return math.fsum(map(log_odds, scores))
    if aggregate == "softmin":
        return _softmin(scores)
    return sum(scores) / len(scores)


def log_odds(score: float) -> float:
    """The logarithm of a probability's odds, its logit; finite for 0 and 1, too.

    Raises:
        GradatimError: if the score is no probability.
    """
    if not 0.0 <= score <= 1.0:
        raise GradatimError(
            f"a score of {score} is no probability, so it has no odds; use a scorer that gives probabilities, or "
            "another aggregate"
        )
    held = min(max(score, _CERTAIN), 1.0 - _CERTAIN)
    return math.log(held / (1.0 - held))


def _softmin(scores: Sequence[float]) -> float:
    least = min(scores)
    weights = [math.exp((least - score) / SOFTMIN_TEMPERATURE) for score in scores]
    return math.fsum(weight * score for weight, score in zip(weights, scores, strict=True)) / math.fsum(weights)
