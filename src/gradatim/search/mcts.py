"""Monte-Carlo tree search over steps: go where the values are high or little is known."""

from __future__ import annotations

from typing import Annotated, ClassVar

from gradatim.part import PartOf, part
from gradatim.search.selection.base import Selection
from gradatim.search.selection.puct import Puct
from gradatim.search.tree_search import TreeSearch


@part
class Mcts(TreeSearch):
    """Monte-Carlo tree search over steps (PUCT as in AlphaZero: Silver et al., 2017, arXiv:1712.01815).

    One simulation walks from the root to a step that was not expanded yet, by PUCT or another ``selection``; expands
    it; values each of its children; and counts each value as one visit of the child and of everything above it. How a
    step is valued is the scorer's: by rollouts, by a value head as in AlphaMath, or by a process reward model.
    """

    title: ClassVar[str] = "MCTS"
    key: ClassVar[str] = "mcts"

    selection: Annotated[Selection, PartOf("search/selection")] = Puct()
