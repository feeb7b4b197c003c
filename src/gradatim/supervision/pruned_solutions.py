"""Right solutions without the steps that nothing came of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import prompt_completion_rows
from gradatim.supervision.shortened import LEFT_OUT, shortened_solutions
from gradatim.supervision.terms import Term
from gradatim.supervision.values import StepValues
from gradatim.tree import Node, Tree


@part
class PrunedSolutions(StepValues, Construction):
    r"""Right solutions without the steps that do not raise the value (after VSRM, Yue et al., 2025, arXiv:2508.10293).

    A step :math:`s` is dropped where :math:`V(s) - V(\text{before } s) \le` ``least_gain`` and both values are known;
    the last one, which ends the solution, stays. What is left is learned from where it is still right. All steps are
    dropped at once, so that one which was needed after all loses the whole solution. The papers, Step Pruner
    (arXiv:2510.03805) too, have this aim in the rewards of reinforcement learning; to learn it from texts is ours.
    Solutions with nothing to drop are given as they are: with ``least_gain`` below every gain, the right solutions.
    """

    what: ClassVar[str] = "right solutions without needless steps"
    groups: ClassVar[int] = 1
    has_targets: ClassVar[bool] = False
    asks: ClassVar[str] = LEFT_OUT
    rows = staticmethod(prompt_completion_rows)

    least_gain: float = 0.0
    """A step is dropped whose value is no more than this above that of what it continues."""
    steps_right: bool = True
    """Whether every step of what is left must be right, where the task knows that; else the solution's verdict is
    enough, which may look at the answer alone."""

    @property
    def keeps_steps_right(self) -> bool:
        return self.steps_right

    def __call__(self, tree: Tree) -> Iterator[Term]:
        return shortened_solutions(tree, self._kept)

    def _kept(self, end: Node, steps: Sequence[Node]) -> Sequence[Node]:
        return [step for step in steps if not self._is_needless(step)]

    def _is_needless(self, step: Node) -> bool:
        before = self.before(step)
        return before is not None and self.has_value(step) and step.scores[self.value] - before <= self.least_gain
