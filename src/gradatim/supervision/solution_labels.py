"""Solution labels: whether each whole solution is right, as training targets."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import unpaired_preference_rows
from gradatim.supervision.terms import Group, Term
from gradatim.tree import Node, Tree


@part
class SolutionLabels(Construction):
    """Every finished solution with its outcome as its label, 1 if it is right (Cobbe et al., 2021, arXiv:2110.14168).

    A term is a solution's path from the prompt to its end. With the objective `process_reward` that makes an outcome
    reward model, which reads whole solutions: at a solution's end, or at each of its steps, where a step that several
    solutions share is aimed at the share of them that is right. Solutions that were cut off or not graded are not used.
    They come in the order of ``tree.nodes``, each once.
    """

    what: ClassVar[str] = "labelled solutions"
    groups: ClassVar[int] = 1
    has_targets: ClassVar[bool] = True
    rows = staticmethod(unpaired_preference_rows)

    steps: Literal["last", "all"] = "last"
    """Which steps are aimed at the outcome: the `last` one of a solution, or `all` of them."""

    def __call__(self, tree: Tree) -> list[Term]:
        return [self._labelled(leaf, float(leaf.correct)) for leaf in tree.solutions() if leaf.correct is not None]

    def _labelled(self, leaf: Node, outcome: float) -> Term:
        path = tuple(leaf.path()[1:])
        above = outcome if self.steps == "all" else math.nan
        return Term((Group(path, targets=(*(above for _ in path[1:]), outcome)),), targets=(outcome,))
