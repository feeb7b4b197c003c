"""A scorer whose scores are made probabilities by a calibration that was fitted before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from gradatim.part import NamesFile, PartOf, part
from gradatim.scorers.base import Context, Scorer, ScorerPart
from gradatim.scorers.calibration import Calibration, read_calibration
from gradatim.scorers.wrapper import Wrapper, WrapperPart
from gradatim.tree import Node


@part
class CalibratedPart(WrapperPart):
    """A scorer's scores as probabilities, by Platt scaling or isotonic regression (Guo et al., 2017, arXiv:1706.04599).

    The calibration is fitted to stored trees by `gradatim calibrate`.
    """

    scorer: Annotated[ScorerPart, PartOf("scorers")]
    """The scorer that the calibration was fitted to."""
    calibration: Annotated[str, NamesFile()]
    """The file of the calibration."""

    def open(self, context: Context) -> CalibratedScorer:
        return CalibratedScorer(self.name, self.scorer.open(context), read_calibration(self.calibration))


class CalibratedScorer(Wrapper):
    """Scores a step by the probability that a calibration makes of another scorer's score.

    Args:
        name: the key in ``node.scores``.
        inner: the scorer.
        calibration: the map.
    """

    def __init__(self, name: str, inner: Scorer, calibration: Calibration) -> None:
        super().__init__(name, [inner])
        self.calibration = calibration

    def combined(self, node: Node, scores: Sequence[float]) -> float:
        return self.calibration(scores[0])
