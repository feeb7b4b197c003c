"""Process reward: tell good steps from bad ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from gradatim.engine.head_shape import HeadShape
from gradatim.objectives.base import Loss
from gradatim.objectives.step_judgement import Judgement, judged
from gradatim.part import part

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class ProcessReward(Judgement):
    """Learn step labels with the head of a token classification model (Lightman et al., 2023, arXiv:2305.20050).

    The loss is the binary cross-entropy between the label and the logit at the step's last token
    (:func:`~gradatim.objectives.step_judgement.judgement_loss`).
    """

    heads: ClassVar[Mapping[str, HeadShape]] = {"score": HeadShape()}

    def loss(self, quantities: Quantities) -> Loss:
        return judged(quantities, "score", "cross_entropy")
