"""What a regrowth is: a pass that samples more in a tree whose solutions were graded, where that teaches most."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from gradatim.part import options
from gradatim.scorers.base import Context
from gradatim.tree import Node, Tree

REGROWN = "regrown"
"""The key of a note on leaves that no search drew: which pass wrote them."""


@options
class Regrowth(ABC):
    """One way to grow on; a subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    It knows the verdicts, which no search does, so nothing that it grows is an answer: evaluations search without it.
    It writes with the policy that the tree was searched with, on the tree's budget, and grades what it wrote. Values
    that are told afterwards count its solutions as they count the search's, though they were not drawn by chance alone.
    """

    @property
    def written(self) -> set[str]:
        """The names of the scores that it writes to trees."""
        return set()

    @abstractmethod
    async def __call__(self, tree: Tree, context: Context) -> None:
        """Grow on in ``tree``, as far as its budget goes.

        Args:
            tree: a tree that was searched and graded.
            context: the task, and the models that the recipe names.
        """


def note_regrown(leaves: Iterable[Node], by: str, known: int) -> None:
    """Note on leaves which pass wrote them; those among the tree's first ``known`` nodes were there before."""
    for leaf in leaves:
        if leaf.id >= known:
            leaf.notes[REGROWN] = by
