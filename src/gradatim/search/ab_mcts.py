"""Adaptive branching: at each step, a further child or a deeper one, as the values so far suggest."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import PositiveInt

from gradatim.part import PartOf, part
from gradatim.search.selection.thompson import Thompson
from gradatim.search.tree_search import TreeSearch


@part
class AbMcts(TreeSearch):
    """AB-MCTS: wider or deeper by Thompson sampling (*Wider or Deeper?*, Inoue et al., 2025, arXiv:2503.04412).

    An expansion draws one step, and a node may be expanded again and again; so the number of branches is found, not
    given. It ends early when nothing new is drawn anywhere.
    """

    title: ClassVar[str] = "AB-MCTS"
    key: ClassVar[str] = "ab_mcts"

    selection: Annotated[Thompson, PartOf("search/selection")] = Thompson()
    simulations: PositiveInt = 128
    branch: PositiveInt = 1
