"""What a distribution over a vocabulary says of how sure a model is: pure functions of log-probabilities, in nats.

Each takes log-probabilities (n, vocabulary) to (n,) numbers. A vocabulary counts with all that the model's output layer
has, entries that stand for no token included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Measure = Callable[[Tensor], Tensor]
"""From log-probabilities (n, vocabulary) to (n,)."""


def entropy(log_probabilities: Tensor) -> Tensor:
    """The Shannon entropy: 0 for a certain token, up to the logarithm of the vocabulary's size."""
    summands: Tensor = torch.special.entr(log_probabilities.exp())
    return summands.sum(dim=-1)


def self_certainty(log_probabilities: Tensor) -> Tensor:
    """How far the distribution is from the uniform one, as the mean of ``-log(V p)`` over the vocabulary of size V: the
    divergence of the model from the uniform distribution, 0 or more (Kang et al., 2025, arXiv:2502.18581)."""
    return -log_probabilities.mean(dim=-1) - math.log(log_probabilities.shape[-1])


@dataclass(frozen=True, slots=True)
class TopConfidence:
    """Minus the mean log-probability of the likeliest tokens: the higher, the less is left for all but the first
    (Fu et al., *Deep Think with Confidence*, 2025, arXiv:2508.15260).

    Attributes:
        count: how many of the likeliest tokens count; all, if there are fewer.
    """

    count: int

    def __call__(self, log_probabilities: Tensor) -> Tensor:
        count = min(self.count, log_probabilities.shape[-1])
        return -log_probabilities.topk(count, dim=-1).values.mean(dim=-1)
