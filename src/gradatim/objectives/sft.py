"""Supervised fine-tuning: likelihood of chosen steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gradatim.objectives.base import Loss, Objective, Unit
from gradatim.part import part

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class Sft(Objective):
    r"""Imitate chosen steps and solutions: their negative log-likelihood, a mean over their tokens.

    .. math:: L = \frac{\sum_i w_i L_i}{\sum_i |w_i| |s_i|}, \qquad L_i = -\log \pi(s_i \mid \text{path})

    A step on several solutions counts as often as it would in separate texts.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"log_probabilities"})
    unit: ClassVar[Unit] = "tokens"
    groups: ClassVar[int | None] = 1

    def loss(self, quantities: Quantities) -> Loss:
        losses = -quantities.singles(quantities.sums(quantities.log_probabilities))
        tokens = quantities.singles(quantities.groups(quantities.lengths))
        return Loss(losses, {"negative_log_likelihood": losses.detach() / tokens.clamp(min=1)})
