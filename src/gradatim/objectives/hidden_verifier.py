"""A small verifier on the policy's own hidden states, which stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

from gradatim.engine.head_shape import HeadShape
from gradatim.objectives.base import Loss
from gradatim.objectives.step_judgement import Judgement, Kind, judged
from gradatim.part import part

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities


@part
class HiddenVerifier(Judgement):
    """Judge steps by the hidden states of the model that wrote them (TrajSelector, 2025, arXiv:2510.16449).

    A perceptron of one hidden layer reads the last hidden state at each step's end. It alone is trained: the model
    below stays as it is, bit for bit, so the verifier may be put on a policy in use. The loss at a step is that of
    :func:`~gradatim.objectives.step_judgement.judgement_loss`; with the construction `solution_labels` and its option
    `steps: all`, every step of a solution is aimed at the solution's outcome, and no step needs a label of its own.

    From the paper: hidden states of the sampler in the place of text, one score for each step, and training from
    outcomes alone. Not from the paper: its verifier is a language model of 0.6 billion parameters on these states, and
    its loss allows for steps that are neither good nor bad. Without the hidden layer it is a logistic regression on
    hidden states.
    """

    heads_only: ClassVar[bool] = True

    width: PositiveInt | None = 64
    """Width of the verifier's hidden layer; `null` for none."""
    kind: Kind = "cross_entropy"
    """Their `cross_entropy`, or the `squared` difference of score and target."""

    @property
    def heads(self) -> Mapping[str, HeadShape]:
        return {"verifier": HeadShape(hidden=self.width)}

    def loss(self, quantities: Quantities) -> Loss:
        return judged(quantities, "verifier", self.kind)
