"""Imitate a right path, and at each of its steps contrast the branches that go well with those that do not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat

from gradatim.objectives.base import Loss, Objective
from gradatim.part import part
from gradatim.supervision.terms import Term, check_pair, from_prompt, parted

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.objectives.quantities import Quantities

_CERTAIN = -1e-6  # mean log-probabilities are taken to be no nearer to 0, so that odds are finite


def odds_ratio_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    r"""How far the odds of the chosen side are from being above those of the rejected one.

    .. math:: -\log \sigma\left(\log \frac{p_c}{1 - p_c} - \log \frac{p_r}{1 - p_r}\right)

    Args:
        chosen, rejected: (N,) mean log-probabilities of a token, the logarithms of :math:`p_c` and :math:`p_r`.

    Returns:
        (N,) one loss for each.
    """
    import torch
    from torch.nn.functional import logsigmoid

    def log_odds(mean: Tensor) -> Tensor:
        held = mean.clamp(max=_CERTAIN)
        return held - torch.log(-torch.expm1(held))

    return -logsigmoid(log_odds(chosen) - log_odds(rejected))


@part
class PathContrast(Objective):
    r"""Contrast the branches of a path (Reasoning Paths Optimization, Chia et al., 2024, arXiv:2410.10858).

    .. math:: L = -\frac{\log \pi(y)}{|y|} - \lambda \log \sigma\left(\log \frac{p_c}{1 - p_c} -
              \log \frac{p_r}{1 - p_r}\right), \qquad p = \exp \frac{\log \pi(b)}{|b|}

    for the chosen solution :math:`y` from the prompt on, and the branches :math:`b`, chosen and rejected, from where
    the two sides of a pair part. There is no reference. `reference_branches` makes such pairs at every step of a right
    path. With :math:`\lambda = 0` it imitates the chosen solutions; of sides that part at the prompt, it is ORPO's loss
    (Hong et al., 2024, arXiv:2403.07691).

    From the paper: both terms, weighed against each other. From its published code: odds of mean probabilities, the
    shared prefix left out of the contrast, and the likelihood of the whole chosen solution.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"log_probabilities"})
    groups: ClassVar[int | None] = 2

    contrast: NonNegativeFloat = 0.3
    r"""Weight of the contrast, :math:`\lambda`."""

    def prepared(self, term: Term) -> Term:
        """The whole chosen solution, then the two branches."""
        term = super().prepared(term)
        check_pair(term)
        return replace(term, groups=(from_prompt(term).groups[0], *parted(term).groups), targets=())

    def loss(self, quantities: Quantities) -> Loss:
        import torch

        tokens = quantities.groups(quantities.lengths).clamp(min=1)
        means = torch.stack(quantities.lists(quantities.sums(quantities.log_probabilities) / tokens))
        solution, chosen, rejected = means.unbind(dim=1)
        losses = -solution + self.contrast * odds_ratio_loss(chosen, rejected)
        found = means.detach()
        metrics = {
            "negative_log_likelihood": -found[:, 0],
            "log_probabilities/chosen": found[:, 1],
            "log_probabilities/rejected": found[:, 2],
            "accuracies": (found[:, 1] > found[:, 2]).to(found.dtype),
        }
        return Loss(losses, metrics)
