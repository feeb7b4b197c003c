"""Process reward: tell good steps from bad ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gradatim.errors import GradatimError
from gradatim.objectives.base import Loss, Quantities
from gradatim.supervision.labels import StepLabel
from gradatim.supervision.terms import Example


def process_reward_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Binary cross-entropy between step logits and hard or soft labels.

    .. math:: L_i = -y_i \log \sigma(z_i) - (1 - y_i) \log \sigma(-z_i)

    Hard labels are those of Lightman et al., "Let's Verify Step by Step" (2023); soft ones, the share of rollouts
    that succeed from the step on, those of Wang et al., "Math-Shepherd" (2023).

    Args:
        logits: (N,) the reward model's logit at each step's last token.
        labels: (N,) between 0 and 1.

    Returns:
        (N,) one loss for each step, in nats.
    """
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")


@dataclass(frozen=True, slots=True)
class ProcessReward:
    """Learn step labels with a token-level head (see :func:`process_reward_loss`)."""

    reads: ClassVar[Literal["log_probabilities", "logits"]] = "logits"
    uses_reference: ClassVar[bool] = False
    unit: ClassVar[Literal["terms", "tokens"]] = "terms"

    def examples(self, labels: Iterable[StepLabel]) -> list[Example]:
        """One example per label.

        Raises:
            GradatimError: if a label is not between 0 and 1.
        """
        examples = []
        for label in labels:
            if not 0 <= label.label <= 1:
                raise GradatimError(f"a step label must be between 0 and 1, got {label.label}; rescale the scores")
            examples.append(Example(((label.node,),), label.weight, label.label))
        return examples

    def loss(self, quantities: Quantities) -> Loss:
        logits, labels = quantities.singles(quantities.values), quantities.targets
        probabilities = torch.sigmoid(logits.detach())
        metrics = {
            "accuracy": ((probabilities > 0.5) == (labels > 0.5)).to(probabilities.dtype),
            "mean_score": probabilities,
            "mean_label": labels,
        }
        return Loss(process_reward_loss(logits, labels), metrics)
