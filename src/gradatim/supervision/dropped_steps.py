"""Right solutions of which parts are dropped by chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import prompt_completion_rows
from gradatim.supervision.shortened import LEFT_OUT, chance_of, shortened_solutions
from gradatim.supervision.terms import Term
from gradatim.tree import Node, Tree


@part
class DroppedSteps(Construction):
    """Reasoning of which parts are dropped by chance, or all (Dualformer, Su et al., 2024, arXiv:2410.09918).

    For each solution a strategy is drawn: the whole solution, one of which each step is dropped with a chance, or its
    last step alone, which states the answer. A policy that learns from all of them writes long and short solutions, and
    chooses by its first step. The paper drops more and more of the kinds of clauses that a search trace is made of;
    text has no such kinds, and steps are dropped here as in its experiments on mathematics. Of searches, mistakes are
    what can be dropped: name `stream_of_search` several times with fewer and fewer ``wrong`` branches. Here each
    solution is drawn once, there anew whenever it is learned from. What is left is learned from as far as the task
    calls it right.
    """

    what: ClassVar[str] = "solutions with steps dropped"
    groups: ClassVar[int] = 1
    has_targets: ClassVar[bool] = False
    asks: ClassVar[str] = LEFT_OUT
    rows = staticmethod(prompt_completion_rows)

    keep_all: NonNegativeFloat = 1.0
    """How often nothing is dropped, beside the other strategies."""
    drop_some: NonNegativeFloat = 1.0
    """How often some steps are."""
    drop_all: NonNegativeFloat = 1.0
    """How often all but the last are."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """The chance of a step to be dropped where some are."""
    seed: int = 0
    """Of all chances."""

    def __post_init__(self) -> None:
        if not self.keep_all + self.drop_some + self.drop_all:
            raise GradatimError(
                "dropped_steps has no strategy: give one of keep_all, drop_some and drop_all a weight above 0"
            )

    def __call__(self, tree: Tree) -> Iterator[Term]:
        return shortened_solutions(tree, self._kept)

    def _kept(self, end: Node, steps: Sequence[Node]) -> Sequence[Node]:
        chance = chance_of(end, self.seed)
        (dropped,) = chance.choices([0.0, self.share, 1.0], [self.keep_all, self.drop_some, self.drop_all])
        return [step for step in steps if chance.random() >= dropped]
