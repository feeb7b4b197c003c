"""Process reward: tell good steps from bad ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gradatim.errors import GradatimError
from gradatim.supervision.labels import StepLabel
from gradatim.training.examples import Example
from gradatim.training.objectives.base import Metrics, StepQuantities, weighted_mean


def process_reward_loss(logits: Tensor, labels: Tensor, weights: Tensor, normalizer: Tensor | None = None) -> Tensor:
    r"""Binary cross-entropy between step logits and hard or soft labels.

    .. math:: L = - \frac{\sum_i w_i [y_i \log \sigma(z_i) + (1 - y_i) \log \sigma(-z_i)]}{\sum_i w_i}

    Hard labels are those of Lightman et al., "Let's Verify Step by Step" (2023); soft ones, the share of rollouts
    that succeed from the step on, those of Wang et al., "Math-Shepherd" (2023).

    Args:
        logits: (I,) the reward model's logit at each step's last token.
        labels: (I,) between 0 and 1.
        weights: (I,).
        normalizer: divides instead of the total weight.

    Returns:
        A scalar, in nats per step.
    """
    if normalizer is None:
        normalizer = weights.sum()
    return (weights * F.binary_cross_entropy_with_logits(logits, labels, reduction="none")).sum() / normalizer


@dataclass(frozen=True, slots=True)
class ProcessReward:
    """Learn step labels with a token-level head (see :func:`process_reward_loss`)."""

    reads: ClassVar[Literal["log_probabilities", "logits"]] = "logits"
    uses_reference: ClassVar[bool] = False

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

    def normalizer(self, weights: Tensor, lengths: Tensor) -> Tensor:
        return weights.sum()

    def loss(self, steps: StepQuantities, normalizer: Tensor) -> tuple[Tensor, Metrics]:
        logits = steps.values[:, 0]
        probabilities = torch.sigmoid(logits.detach())
        right = ((probabilities > 0.5) == (steps.targets > 0.5)).float()
        metrics = {
            "accuracy": weighted_mean(right, steps.weights),
            "mean_score": weighted_mean(probabilities, steps.weights),
            "mean_label": weighted_mean(steps.targets, steps.weights),
        }
        return process_reward_loss(logits, steps.targets, steps.weights, normalizer), metrics
