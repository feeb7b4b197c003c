"""Q-values: what a step is worth if what follows is chosen well."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gradatim.part import part
from gradatim.scorers.base import Context
from gradatim.tree import Tree
from gradatim.values.backup import back_up_values
from gradatim.values.base import Values


@part
class QValues(Values):
    r"""Q-values by the Bellman equation over the tree (Q*, Wang et al., 2024, arXiv:2406.14283).

    .. math:: Q(s) = r(s) + \gamma \max_{s'} Q(s') \quad\text{or}\quad
              r(s) + \gamma \frac{\sum_{s'} n_{s'} Q(s')}{\sum_{s'} n_{s'}}

    for a step :math:`s` with its reward (a solution's at its end, else what an environment gave it), the steps
    :math:`s'` below it that have a value, and how often each was drawn, :math:`n`. The maximum is of the optimal
    policy among what was tried, the mean of the policy that grew the tree; undiscounted, that is `backup`. A model
    learns them by the objective `value`, or as implicit rewards by `step_dpo` on sibling pairs (Zhai et al., 2024,
    arXiv:2409.09345). A maximum over few noisy draws leans upwards.
    """

    backup: Literal["max", "mean"] = "max"
    """What follows a step: the `max` of its children, or their `mean`."""
    discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What a reward one step later is worth."""

    async def __call__(self, tree: Tree, context: Context) -> None:
        back_up_values(tree, self.key, following=self.backup, discount=self.discount)
