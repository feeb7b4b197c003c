"""Where wrong solutions lost what they could have won, against a step that gained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import preference_rows
from gradatim.supervision.terms import Term
from gradatim.supervision.values import SureStepValues
from gradatim.tree import Node, Tree


@part
class AdvantagePairs(SureStepValues, Construction):
    """The first step of a wrong solution that lost value, against the sibling that gained most (arXiv:2406.14532).

    A step's advantage is its value minus that of the step before it: how much likelier it made a right solution. Setlur
    et al., *RL on Incorrect Synthetic Data* (2024), choose the negatives of per-step DPO so that what is learned from
    them are these advantages: the rest of a wrong solution is not to blame, and a right solution's spurious steps are
    not to praise. A pair's targets are the values of both steps, which differ as their advantages do. Each losing step
    is rejected once; wrong solutions no step of which lost, or where no sibling gained, give nothing. Ours: the values
    are those of the tree, where the paper completes each prefix anew.
    """

    what: ClassVar[str] = "pairs of steps"
    groups: ClassVar[int] = 2
    has_targets: ClassVar[bool] = True
    asks: ClassVar[str] = "no wrong solution lost value at a step in whose place another one gained"
    rows = staticmethod(preference_rows)

    min_loss: Annotated[float, Field(ge=0)] = 0.0
    """How much value the rejected step has lost at least."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        lost = (self._loss(leaf) for leaf in tree.solutions() if leaf.correct is False)
        for step in dict.fromkeys(node for node in lost if node is not None):
            before = self.before(step)
            assert step.parent is not None
            assert before is not None, "it has lost something"
            best = max(self.valued(step.parent.children), key=lambda child: child.scores[self.value])
            if best.scores[self.value] > before and self.are_apart(best, step):
                yield self.ordered(best, step)

    def _loss(self, leaf: Node) -> Node | None:
        """The first step on the path that lost value."""
        for step in leaf.path()[1:]:
            before = self.before(step) if self.has_value(step) else None
            if before is not None and before > step.scores[self.value] <= before - self.min_loss:
                return step
        return None
