"""Advantages of whole solutions among those of one problem."""

from __future__ import annotations

from itertools import islice
from typing import ClassVar, Literal

from gradatim.part import part
from gradatim.supervision.advantages import Advantages, Relative, Rewards, Solution, kept, returns
from gradatim.supervision.terms import Term
from gradatim.tree import Tree


@part
class TrajectoryAdvantages(Relative, Rewards, Advantages):
    r"""Solutions relative to those of the same problem (GRPO, Shao et al., 2024, arXiv:2402.03300).

    .. math:: A_{it} = w \, \hat R_i + u \sum_{k \ge t} \hat r_{ik}

    for step :math:`t` of solution :math:`i`, its reward :math:`R_i` and the steps' own rewards :math:`r_{ik}`, each
    made relative (the hats) to all of its kind in the tree, and the two weights. Without steps' own rewards every step
    has its solution's advantage, which is GRPO, or with ``normalize: leave_one_out`` RLOO. With steps' own rewards
    alone (``reward_weight: 0``) it is GRPO with process supervision, of the same paper; both are added as in PRIME (Cui
    et al., 2025, arXiv:2502.01456). With ``returns: whole`` a solution's rewards are summed before they are compared,

    .. math:: A_{it} = \widehat{\left(w R_i + u \textstyle\sum_k r_{ik}\right)}

    which is StepGRPO (Zhang et al., *R1-VL*, 2025, arXiv:2503.12937), whose steps' rewards follow rules for their
    matching and order. Solutions come in the order of ``tree.nodes``, each as often as it was drawn.
    """

    has_step_targets: ClassVar[bool] = True
    asks: ClassVar[str] = "no problem has several solutions whose rewards differ"

    returns: Literal["to_go", "whole"] = "to_go"
    """What of the steps' own rewards counts for a step: those from it on, `to_go`, or the `whole` solution's."""

    def __call__(self, tree: Tree) -> list[Term]:
        solutions = self.solutions(tree)
        return kept(each.term(given) for each, given in zip(solutions, self._advantages(solutions), strict=True))

    def _advantages(self, solutions: list[Solution]) -> list[list[float]]:
        counts = [each.count for each in solutions]
        if self.returns == "whole":
            whole = self.relative([sum(self.earned(each)) for each in solutions], counts)
            return [[given] * len(each.steps) for given, each in zip(whole, solutions, strict=True)]
        outcomes = self.relative([each.outcome for each in solutions], counts)
        steps = iter(
            self.relative(
                [reward for each in solutions for reward in each.extra],
                [each.count for each in solutions for _ in each.steps],
            )
        )
        to_go = [returns(list(islice(steps, len(each.steps)))) for each in solutions]
        return [
            [self.reward_weight * outcome + self.step_reward_weight * later for later in each]
            for outcome, each in zip(outcomes, to_go, strict=True)
        ]
