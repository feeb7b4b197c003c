"""Right solutions without their first steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import prompt_completion_rows
from gradatim.supervision.shortened import LEFT_OUT, chance_of, shortened_solutions
from gradatim.supervision.terms import Term
from gradatim.tree import Node, Tree


@part
class InternalisedSteps(Construction):
    r"""Step-by-step internalisation: solutions that begin later and later (Deng et al., 2024, arXiv:2405.14838).

    A policy that can write every step learns to do without the first :math:`k`, then without more, until it only
    writes the last one, which states the answer. The schedule of :math:`k` is a list of trainings, entries of `learn`
    one after another on the same trees: each goes on from the model that the one before it left, with a new optimizer,
    as in the paper. There :math:`k` counts tokens, here it counts steps. With ``smoothing`` :math:`q` it is
    :math:`k + o` where :math:`P(o) \propto q^o`; the paper has :math:`q = e^{-4}`. With none removed these are the
    right solutions. They are learned from as far as the task calls them right: a solution whose steps are its answer,
    as in countdown, has none to spare.
    """

    what: ClassVar[str] = "solutions without their first steps"
    groups: ClassVar[int] = 1
    has_targets: ClassVar[bool] = False
    asks: ClassVar[str] = LEFT_OUT
    rows = staticmethod(prompt_completion_rows)

    removed: NonNegativeInt | None = 1
    """How many steps are left out; `null` for all but the last, which is always kept."""
    side: Literal["first", "last"] = "first"
    """Whether the `first` steps are left out, or the `last` ones before the end."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The chance that one step more is left out, and of each further one."""
    seed: int = 0
    """Of that chance."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        return shortened_solutions(tree, self._kept)

    def _kept(self, end: Node, steps: Sequence[Node]) -> Sequence[Node]:
        if self.removed is None:
            return ()
        removed, chance = self.removed, chance_of(end, self.seed)
        while removed < len(steps) and chance.random() < self.smoothing:
            removed += 1
        return steps[removed:] if self.side == "first" else steps[: max(0, len(steps) - removed)]
