"""Rewards that repetition cannot add up: each step's score, clipped at a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import FiniteFloat

from gradatim.part import PartOf, part
from gradatim.scorers.base import Context, Scorer, ScorerPart
from gradatim.scorers.wrapper import Wrapper, WrapperPart
from gradatim.tree import Node


@part
class ClipPart(WrapperPart):
    """A scorer's scores less a threshold, and no more than 0 (Clip: Gao et al., 2024, arXiv:2410.15115)."""

    scorer: Annotated[ScorerPart, PartOf("scorers")]
    """The scorer."""
    threshold: FiniteFloat
    """What good steps score: from here on a step earns nothing more."""

    def open(self, context: Context) -> ClipScorer:
        return ClipScorer(self.name, self.scorer.open(context), self.threshold)


class ClipScorer(Wrapper):
    """Scores a step by ``min(score - threshold, 0)``: however many steps there are, the sum is at most 0, so that a
    good step that is written again earns nothing, and a bad one costs.

    Args:
        name: the key in ``node.scores``.
        inner: the scorer.
        threshold: the least score that costs nothing.
    """

    def __init__(self, name: str, inner: Scorer, threshold: float) -> None:
        super().__init__(name, [inner])
        self.threshold = threshold

    def combined(self, node: Node, scores: Sequence[float]) -> float:
        return min(scores[0] - self.threshold, 0.0)
