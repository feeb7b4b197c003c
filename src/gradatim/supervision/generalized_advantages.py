"""Advantages of steps by a value and by what followed, mixed: generalized advantage estimation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from gradatim.part import part
from gradatim.supervision.advantages import Advantages, Rewards, Solution, kept, returns
from gradatim.supervision.terms import Term
from gradatim.supervision.values import StepValues
from gradatim.tree import Tree

Share = Annotated[float, Field(ge=0, le=1)]


@part
class GeneralizedAdvantages(Rewards, StepValues, Advantages):
    r"""Generalized advantage estimation with the step as the unit (StepPO, Wang et al., 2026, arXiv:2604.18401).

    .. math:: A_t = \sum_{k \ge t} (\gamma \lambda)^{k - t} \delta_k, \qquad
              \delta_t = r_t + \gamma V(s_{t + 1}) - V(s_t)

    (Schulman et al., 2015, arXiv:1506.02438) for what step :math:`t` of a solution earned, and the value of the prefix
    before it and after it, which is 0 where the solution ended. With ``trace`` :math:`\lambda = 1` it is what was
    earned from the step on less the value before it; with :math:`\lambda = 0` the difference :math:`\delta_t` of one
    step. Values are what is expected to follow, by any score: a critic's, or rollouts' from every step (VinePPO,
    Kazemnejad et al., 2024, arXiv:2410.01679). Solutions with a step that has no value are left out. They come in the
    order of ``tree.nodes``, each as often as it was drawn.
    """

    has_step_targets: ClassVar[bool] = True
    asks: ClassVar[str] = "no solution has steps whose rewards and values differ from what was expected"

    discount: Share = 1.0
    """What a reward one step later is worth, :math:`\\gamma`."""
    trace: Share = 0.95
    """How far what followed counts in the place of the next value, :math:`\\lambda`."""

    def __call__(self, tree: Tree) -> list[Term]:
        return kept(self._terms(self.solutions(tree)))

    def _terms(self, solutions: list[Solution]) -> Iterator[Term]:
        for each in solutions:
            known = [before for step in each.steps if (before := self.before(step)) is not None]
            if len(known) == len(each.steps):
                differences = [
                    reward + self.discount * after - before
                    for reward, before, after in zip(self.earned(each), known, [*known[1:], 0.0], strict=True)
                ]
                yield each.term(returns(differences, self.discount * self.trace))
