"""Labels of steps by what became of the chance of success: better or worse than before."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from gradatim.part import part
from gradatim.scorers.base import Context
from gradatim.supervision.values import has_value, value_before
from gradatim.tree import Tree
from gradatim.values.base import VALUE, Values


@part
class RelativeLabels(Values):
    r"""Good and bad steps by relative outcomes of rollouts (StepWiser, Xiong et al., 2025, arXiv:2508.19229).

    With :math:`V` the share of rollouts from a step that succeed and :math:`V^-` that from before it, a step is good if

    .. math:: \frac{V}{V^-} > \gamma \quad\text{(ratio)} \qquad\text{or}\qquad
              V + \alpha \left[(1 - V^-)^n - (1 - V)^n\right] > 0 \quad\text{(effective)}

    The bracket is how much the step raises the chance that the best of :math:`n` rollouts succeeds, so that `effective`
    is the sign of the reward of process advantage verifiers (Setlur et al., 2024, arXiv:2410.08146). Else it is bad.
    The ratio is above every :math:`\gamma` where nothing succeeds before a step and something behind it, and above none
    where nothing does behind it; that, and the defaults of :math:`\alpha` and :math:`n`, are ours. With ``alpha: 0`` a
    step is good if anything succeeds behind it, which is what `step_labels` calls a hard label.
    """

    key: str = "label"
    """The name of the labels in trees, 1 and 0."""
    value: str = Field(default=VALUE, min_length=1)
    """The score that says how likely success is from a step on."""
    rule: Literal["ratio", "effective"] = "effective"
    """What makes a step good: the `ratio` of the chances, or the `effective` reward."""
    ratio: NonNegativeFloat = 0.8
    """The ratio that a good step is above."""
    alpha: NonNegativeFloat = 1.0
    """How much the change counts in the effective reward."""
    best_of: PositiveInt = 4
    """Rollouts of which the best counts there."""

    async def __call__(self, tree: Tree, context: Context) -> None:
        for node in tree.nodes[1:]:
            node.scores.pop(self.key, None)
            node.counts.pop(self.key, None)
            before = value_before(node, self.value)
            if before is not None and has_value(node, self.value):
                node.scores[self.key] = float(self.is_good(node.scores[self.value], before))
                node.counts[self.key] = node.counts.get(self.value, node.multiplicity)

    def is_good(self, value: float, before: float) -> bool:
        """Whether a step with this chance behind it and that chance before it is good."""
        if self.rule == "ratio":
            return value > self.ratio * before
        return value + self.alpha * ((1 - before) ** self.best_of - (1 - value) ** self.best_of) > 0
