"""Direct preference optimization over whole solutions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from gradatim.errors import GradatimError
from gradatim.objectives.base import Loss, Quantities
from gradatim.supervision.pairs import StepPair
from gradatim.supervision.terms import Example, parting_steps


def dpo_loss(
    log_probabilities: Tensor,
    reference: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    nll_coefficient: float = 0.0,
    lengths: Tensor | None = None,
    margins: Tensor | None = None,
) -> Tensor:
    r"""Preference loss of each pair.

    With :math:`h = \beta [(\log \pi_c - \log \rho_c) - (\log \pi_r - \log \rho_r)] - m` for policy :math:`\pi`,
    reference :math:`\rho`, chosen :math:`c`, rejected :math:`r` and margin :math:`m`:

    .. math:: L = -(1 - \epsilon) \log \sigma(h) - \epsilon \log \sigma(-h) - \alpha \frac{\log \pi_c}{|c|}

    Rafailov et al., "Direct Preference Optimization" (2023); :math:`\epsilon` is the label smoothing of Mitchell, "A
    note on DPO with noisy preferences" (2023); :math:`\alpha` the likelihood term of Pang et al., "Iterative Reasoning
    Preference Optimization" (2024); :math:`m` the offset of Amini et al., "Direct Preference Optimization with an
    Offset" (2024).

    Args:
        log_probabilities: (P, 2) of chosen and rejected, summed over tokens.
        reference: (P, 2) the same under the reference.
        beta: how strongly the policy is held to the reference.
        label_smoothing: probability that a preference is wrong, in [0, 0.5).
        nll_coefficient: weight of the likelihood of the chosen side, per token.
        lengths: (P, 2) tokens; needed for the likelihood term.
        margins: (P,) how much better the chosen side has to be.

    Returns:
        (P,) one loss per pair.
    """
    ratios = log_probabilities - reference
    advantage = beta * (ratios[:, 0] - ratios[:, 1])
    if margins is not None:
        advantage = advantage - margins
    losses = -F.logsigmoid(advantage)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * F.logsigmoid(-advantage)
    if nll_coefficient:
        if lengths is None:
            raise ValueError("the likelihood term needs the lengths of the chosen sides")
        losses = losses - nll_coefficient * log_probabilities[:, 0] / lengths[:, 0].clamp(min=1)
    return losses


@dataclass(frozen=True, slots=True)
class PairObjective:
    """What DPO and Step-DPO share; they differ in the steps that a pair compares.

    Attributes:
        beta: how strongly the policy is held to the reference.
        label_smoothing: probability that a preference is wrong, in [0, 0.5).
        nll_coefficient: weight of the likelihood of the chosen side, per token.
        margin_coefficient: a pair's ``margin`` times this is the offset by which its chosen side has to be better.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    nll_coefficient: float = 0.0
    margin_coefficient: float = 0.0

    reads: ClassVar[Literal["log_probabilities", "logits"]] = "log_probabilities"
    uses_reference: ClassVar[bool] = True
    unit: ClassVar[Literal["terms", "tokens"]] = "terms"

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise GradatimError(f"beta must be above 0, got {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise GradatimError(f"label_smoothing must be at least 0 and below 0.5, got {self.label_smoothing}")
        if self.nll_coefficient < 0 or self.margin_coefficient < 0:
            raise GradatimError("nll_coefficient and margin_coefficient must be 0 or more")

    def loss(self, quantities: Quantities) -> Loss:
        values, reference = quantities.pairs(quantities.values), quantities.pairs(quantities.reference)
        losses = dpo_loss(
            values,
            reference,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            nll_coefficient=self.nll_coefficient,
            lengths=quantities.pairs(quantities.lengths),
            margins=self.margin_coefficient * quantities.targets,
        )
        rewards = self.beta * (values.detach() - reference)
        metrics = {
            "rewards/chosen": rewards[:, 0],
            "rewards/rejected": rewards[:, 1],
            "rewards/margins": rewards[:, 0] - rewards[:, 1],
            "rewards/accuracies": (rewards[:, 0] > rewards[:, 1]).to(rewards.dtype),
        }
        return Loss(losses, metrics)


@dataclass(frozen=True, slots=True)
class Dpo(PairObjective):
    """Prefer whole solutions: each side is everything that the policy wrote from the prompt to the pair's node.

    The steps that both sides share cancel in the preference (see :func:`dpo_loss`) and count in the likelihood term.
    """

    def examples(self, pairs: Iterable[StepPair]) -> list[Example]:
        """One example per pair; chosen and rejected are the ends of two solutions of one problem.

        Raises:
            GradatimError: if a pair's nodes are of different trees, or one lies on the other's path.
        """
        examples = []
        for pair in pairs:
            parting_steps(pair.chosen, pair.rejected)
            paths = tuple(pair.chosen.path()[1:]), tuple(pair.rejected.path()[1:])
            examples.append(Example(paths, pair.weight, pair.margin))
        return examples
