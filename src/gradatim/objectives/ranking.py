"""A verifier that learns from comparisons: of steps after one prefix, which is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat

from gradatim.engine.head_shape import HeadShape
from gradatim.objectives.base import Loss, Objective
from gradatim.part import part
from gradatim.supervision.terms import Term, check_pair

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.objectives.quantities import Quantities

Comparison = Literal["logistic", "hinge"]


def comparison_loss(differences: Tensor, margin: float, kind: Comparison) -> Tensor:
    r"""How far the better one of two is from being better by a margin.

    .. math:: -\log \sigma(d - m) \quad\text{or}\quad \max(0, m - d)

    Args:
        differences: (P,) of what the better and the worse one were given.
        margin: by how much the better one should be above.
        kind: which of the two.

    Returns:
        (P,) one loss for each.
    """
    from torch.nn.functional import logsigmoid

    return (margin - differences).relu() if kind == "hinge" else -logsigmoid(differences - margin)


@part
class Ranking(Objective):
    r"""Rank steps after one prefix by their logits (Tree-PLV, He et al., 2024, arXiv:2407.00390).

    .. math:: L_i = \binom{n}{2}^{-1} \sum_{j < k} \ell(z_j - z_k), \qquad
              \ell(d) = -\log \sigma(d - m) \;\text{or}\; \max(0, m - d)

    for the logits :math:`z` of the reward model's head at the ends of the term's ``n`` groups, best first. Of pairs,
    which is all that there is in the paper, one difference remains. With the hinge it is the discriminator of GRACE
    (Khalifa et al., 2023, arXiv:2305.14934), contrasted on right and wrong steps. Only differences are learned: the
    logits may all be shifted, so their sigmoid ranks, and is no probability.
    """

    heads: ClassVar[Mapping[str, HeadShape]] = {"score": HeadShape()}
    at_least: ClassVar[int] = 2

    comparison: Comparison = "logistic"
    """The loss of a difference: `logistic`, or a `hinge`, which asks no more once the margin is kept."""
    margin: NonNegativeFloat | None = None
    """By how much the better logit should be above the worse; `null` is 0 for `logistic` and 1 for `hinge`."""

    def prepared(self, term: Term) -> Term:
        term = super().prepared(term)
        if len(term.groups) == 2:
            check_pair(term)
        return term

    def loss(self, quantities: Quantities) -> Loss:
        import torch

        margin = self.margin if self.margin is not None else float(self.comparison == "hinge")
        losses, differences = [], []
        for logits in quantities.lists(quantities.ends(quantities.heads["score"])):
            better, worse = torch.triu_indices(len(logits), len(logits), offset=1, device=logits.device)
            differences.append(logits[better] - logits[worse])
            losses.append(comparison_loss(differences[-1], margin, self.comparison).mean())
        metrics = {
            "accuracy": torch.stack([(each > 0).to(each.dtype).mean() for each in differences]).detach(),
            "mean_difference": torch.stack([each.mean() for each in differences]).detach(),
        }
        return Loss(torch.stack(losses), metrics)
