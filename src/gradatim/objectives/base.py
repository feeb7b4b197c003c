"""What an objective is: a pure function of the quantities of steps to a loss for each term."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from gradatim.errors import GradatimError


@dataclass(frozen=True, eq=False)
class Quantities:
    """What is known of the terms of a row: ``N`` terms of ``G`` groups of steps in all, as many to a term as it has.

    Attributes:
        values (``G``): summed log-probability of each group under the model that is trained, or the reward model's
            logit at its end; as the objective ``reads``.
        reference (``G``): summed log-probability under the reference.
        lengths (``G``): step tokens.
        group_term (``G``): the term that a group is of, ascending.
        weights (``N``): how much each term counts, of either sign.
        targets (``N``): labels, margins or advantages.
    """

    values: Tensor
    reference: Tensor
    lengths: Tensor
    group_term: Tensor
    weights: Tensor
    targets: Tensor

    def singles(self, of: Tensor) -> Tensor:
        """A quantity of groups, (G,), by terms of one group each: (N,).

        Raises:
            GradatimError: if a term has another number of groups.
        """
        return self._by_term(of, 1, "one step or solution")[:, 0]

    def pairs(self, of: Tensor) -> Tensor:
        """A quantity of groups, (G,), by terms of two groups each, chosen and rejected: (N, 2).

        Raises:
            GradatimError: if a term has another number of groups.
        """
        return self._by_term(of, 2, "pairs")

    def _by_term(self, of: Tensor, groups: int, what: str) -> Tensor:
        terms = self.weights.shape[0]
        expected = torch.arange(terms, device=self.group_term.device).repeat_interleave(groups)
        if self.group_term.shape != expected.shape or not torch.equal(self.group_term, expected):
            raise GradatimError(f"the objective learns from {what}, but the examples are of another kind")
        return of.view(terms, groups)


@dataclass(frozen=True, eq=False)
class Loss:
    """What an objective says of every term; the trainer takes the means.

    Attributes:
        per_term (``N``): the loss of each term. What is minimized is ``sum(weight * per_term) / sum(abs(weight) *
            unit)``, over everything that one update sees: so a batch in parts has the loss and gradient of the batch in
            one part, and advantages of both signs, given as weights, do not make the sum below vanish.
        metrics: by name, a number for each term, detached (``N``); their means by the absolute weights are logged.
    """

    per_term: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A loss over the steps of trees.

    Attributes:
        reads: what the forward pass must give: summed log-probabilities, or a reward model's logits.
        uses_reference: whether reference log-probabilities are needed.
        unit: what the loss is a mean over: terms, or the tokens of their steps.
    """

    @property
    def reads(self) -> Literal["log_probabilities", "logits"]: ...

    @property
    def uses_reference(self) -> bool: ...

    @property
    def unit(self) -> Literal["terms", "tokens"]: ...

    def loss(self, quantities: Quantities) -> Loss:
        """The loss of every term."""
        ...


def term_sizes(objective: Objective, lengths: Tensor, group_term: Tensor, weights: Tensor) -> Tensor:
    """What each term counts in the mean that a loss is, (N,): its absolute weight, times its tokens where the objective
    is a mean over tokens.

    Args:
        objective: says what its loss is a mean over.
        lengths: (G,) step tokens of each group.
        group_term: (G,) the term that a group is of.
        weights: (N,).
    """
    sizes = weights.abs()
    if objective.unit == "tokens":
        sizes = sizes * torch.zeros_like(weights).index_add(0, group_term, lengths.to(weights.dtype))
    return sizes
