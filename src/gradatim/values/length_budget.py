"""Rewards of solutions that keep to a length that was asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.scorers.base import Context
from gradatim.supervision.values import judged_ends
from gradatim.tree import Tree
from gradatim.values.base import Values
from gradatim.values.solution_lengths import LengthUnit, solution_length


@part
class LengthBudget(Values):
    r"""Right and of the length that the prompt names (L1, Aggarwal and Welleck, 2025, arXiv:2503.04697).

    .. math:: R' = o - \alpha |n^* - n| \qquad\text{or}\qquad
              R' = o \cdot \operatorname{clip}(\alpha (n^* - n) + \delta, 0, 1)

    for whether a solution is right, :math:`o`, its length :math:`n` and the one that was asked for, :math:`n^*`: to be
    met, ``exact``, or not to be passed, ``max``. The policy must be told :math:`n^*` in its prompt, which is the task's
    to say; it lies in the problem's data, or is one for all. With :math:`\alpha = 0` the first is the plain reward, and
    the second a constant times it. Written at the ends of solutions, for the option ``reward`` of advantages.
    """

    key: str = "within_budget"
    """The name of the rewards in trees."""
    form: Literal["exact", "max"] = "max"
    """Whether the length is to be met, `exact`, or not to be passed, `max`."""
    length: PositiveInt | None = None
    """The length that is asked for, the same for every problem; `null` for what each problem says."""
    field: str = Field(default="length", min_length=1)
    """The key in a problem's data that says it."""
    alpha: NonNegativeFloat = 0.0003
    """What one token, or step, of difference costs."""
    delta: Annotated[float, Field(ge=0, le=1)] = 0.5
    """What a right solution of just that length earns by `max`."""
    unit: LengthUnit = "tokens"
    """What length is measured in: `tokens` or `steps`."""

    async def __call__(self, tree: Tree, context: Context) -> None:
        asked = self._asked(tree)
        for end in judged_ends(tree):
            left = asked - solution_length(end, self.unit)
            right = float(bool(end.correct))
            exact, most = right - self.alpha * abs(left), right * min(max(self.alpha * left + self.delta, 0.0), 1.0)
            end.scores[self.key] = exact if self.form == "exact" else most
            end.counts[self.key] = end.multiplicity

    def _asked(self, tree: Tree) -> float:
        if self.length is not None:
            return self.length
        found = tree.problem.data.get(self.field)
        if isinstance(found, bool) or not isinstance(found, int | float) or found <= 0:
            raise GradatimError(
                f"the problem {tree.problem.id!r} says no length under {self.field!r} of its data; give its records "
                "that field, or the values length_budget one length for all"
            )
        return found
