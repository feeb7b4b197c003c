"""Preferences over whole rankings of branches, in the place of pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat

from gradatim.objectives.base import Loss, Objective
from gradatim.part import part
from gradatim.supervision.terms import Term, check_pair

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.objectives.quantities import Quantities


def plackett_luce_loss(rewards: Tensor, values: Tensor) -> Tensor:
    r"""How unlikely a ranking is, if each place is given in proportion to exponentials of rewards.

    .. math:: -\sum_j \log \frac{e^{r_j}}{e^{r_j} + \sum_{k:\, v_k < v_j} e^{r_k}}

    What has equal values is not ranked against each other. Of two it is :math:`-\log \sigma(r_1 - r_2)`.

    Args:
        rewards: (n,) of the policy.
        values: (n,) by which they are ranked.

    Returns:
        The loss, ().
    """
    import torch

    beaten = (values[None, :] < values[:, None]) | torch.eye(len(values), dtype=torch.bool, device=values.device)
    return (rewards.expand(len(rewards), -1).masked_fill(~beaten, -torch.inf).logsumexp(dim=1) - rewards).sum()


def lambda_loss(rewards: Tensor, values: Tensor) -> Tensor:
    r"""How unlikely each pair of a ranking is, weighted by what it would cost to mistake it.

    .. math:: -\sum_{v_j > v_k} \left|2^{v_j} - 2^{v_k}\right|
              \left|\frac{1}{\log_2(1 + \tau_j)} - \frac{1}{\log_2(1 + \tau_k)}\right| \log \sigma(r_j - r_k)

    for the places :math:`\tau = 1, 2, \ldots` by the rewards as they are: the LambdaLoss of Liu et al., "LiPO" (2024,
    arXiv:2402.01878). Of two it is :math:`-\log \sigma(r_1 - r_2)` times a constant and the gap of the values.

    Args:
        rewards: (n,) of the policy.
        values: (n,) by which they are ranked.

    Returns:
        The loss, ().
    """
    import torch
    from torch.nn.functional import logsigmoid

    places = torch.empty_like(rewards)
    order = rewards.detach().argsort(descending=True, stable=True)
    places[order] = torch.arange(1, len(rewards) + 1, dtype=rewards.dtype, device=rewards.device)
    discounts, gains = 1 / (1 + places).log2(), values.exp2()
    better, worse = (values[:, None] > values[None, :]).nonzero(as_tuple=True)
    costs = (gains[better] - gains[worse]).abs() * (discounts[better] - discounts[worse]).abs()
    return -(costs * logsigmoid(rewards[better] - rewards[worse])).sum()


@part
class Tpo(Objective):
    r"""Prefer by rankings of steps or solutions (Tree Preference Optimization, Liao et al., 2024, arXiv:2410.12854).

    .. math:: L = \ell(r, v), \qquad r_j = \beta \sum_k w_{jk} \log \frac{\pi(s_{jk})}{\rho(s_{jk})}

    for the groups :math:`j` of a term with their values :math:`v`, and the steps :math:`k` of each, which count by the
    weights of the group; :math:`\ell` is :func:`lambda_loss` or :func:`plackett_luce_loss`. Of a pair the latter is
    DPO's loss (Rafailov et al., 2023, give it for rankings too), the former the same times the gap.

    From the paper: ranking lists of the branches of a tree by the LambdaLoss, and rewards of steps that adapt to how
    much a step tells apart. Not from the paper: that weight. It is made of the cosine of hidden states there; here it
    is a matter of the construction (`solution_lists` with its option `emphasis`).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"log_probabilities", "reference"})
    at_least: ClassVar[int] = 2

    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    ranking: Literal["lambda", "plackett_luce"] = "lambda"
    """Of pairs by the cost of a mistake (`lambda`, the paper's), or of whole orders (`plackett_luce`)."""

    @property
    def needs_targets(self) -> bool:
        return True

    def prepared(self, term: Term) -> Term:
        term = super().prepared(term)
        if len(term.groups) == 2:
            check_pair(term)
        return term

    def loss(self, quantities: Quantities) -> Loss:
        import torch

        loss = lambda_loss if self.ranking == "lambda" else plackett_luce_loss
        ratios = quantities.sums(quantities.log_probabilities - quantities.reference)
        losses, metrics = [], []
        for own, values in zip(quantities.lists(self.beta * ratios), quantities.lists(quantities.target), strict=True):
            losses.append(loss(own, values))
            metrics.append(_order(own.detach(), values))
        margins, right = torch.stack(metrics).unbind(dim=1)
        return Loss(torch.stack(losses), {"rewards/margins": margins, "rewards/accuracies": right})


def _order(rewards: Tensor, values: Tensor) -> Tensor:
    """By how much the rewards of a ranking's pairs differ on average, and the share that they order rightly: (2,)."""
    import torch

    better, worse = (values[:, None] > values[None, :]).nonzero(as_tuple=True)
    if not len(better):
        return rewards.new_zeros(2)
    gaps = rewards[better] - rewards[worse]
    return torch.stack([gaps.mean(), (gaps > 0).to(gaps.dtype).mean()])
