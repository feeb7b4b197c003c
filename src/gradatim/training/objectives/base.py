"""What an objective is: a pure function of per-step quantities to a loss and its metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

Metrics = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class StepQuantities:
    """What is known of the examples of a row. ``I`` examples of ``g`` groups (1, or 2 for a pair: chosen, rejected).

    Attributes:
        values (``I``, ``g``): summed log-probability of each group under the model that is trained, or the reward
            model's logit at its end; as the objective ``reads``.
        reference (``I``, ``g``): summed log-probability under the reference.
        lengths (``I``, ``g``): step tokens.
        weights (``I``): how much each example counts.
        targets (``I``): labels, or margins.
    """

    values: Tensor
    reference: Tensor
    lengths: Tensor
    weights: Tensor
    targets: Tensor


class Objective(Protocol):
    """A loss over the steps of trees.

    Losses are sums over examples divided by a normalizer (the total weight, or the number of tokens). The trainer
    passes the normalizer of everything that one update sees, so a batch that is accumulated in parts has the same
    loss and gradient as the batch in one part.

    Attributes:
        reads: what the forward pass must give: summed log-probabilities, or a reward model's logits.
        uses_reference: whether reference log-probabilities are needed.
    """

    @property
    def reads(self) -> Literal["log_probabilities", "logits"]: ...

    @property
    def uses_reference(self) -> bool: ...

    def normalizer(self, weights: Tensor, lengths: Tensor) -> Tensor:
        """The scalar that the loss of examples with these weights (I,) and lengths (I, g) is divided by."""
        ...

    def loss(self, steps: StepQuantities, normalizer: Tensor) -> tuple[Tensor, Metrics]:
        """The loss, a scalar, and metrics, weighted means over the examples."""
        ...


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of ``values`` (I,), detached, weighted by ``weights`` (I,)."""
    return (values.detach() * weights).sum() / weights.sum().clamp(min=1e-12)
