"""Best-first search: expand whatever is worth most, wherever it lies."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import PositiveInt

from gradatim.part import PartOf, part
from gradatim.search.selection.best_first import BestFirst
from gradatim.search.tree_search import TreeSearch


@part
class BestFirstSearch(TreeSearch):
    """Best-first search by a critic's values (*Tree Search for Language Model Agents*, Koh et al., arXiv:2407.01476).

    It ends when a finished solution is worth more than all that could be expanded.
    """

    title: ClassVar[str] = "best-first search"
    key: ClassVar[str] = "best_first"

    selection: Annotated[BestFirst, PartOf("search/selection")] = BestFirst()
    wave: PositiveInt = 1
