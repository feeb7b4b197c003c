"""What a scorer is: whatever judges a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from gradatim.tree import Node


@runtime_checkable
class Scorer(Protocol):
    """Writes one number per node under its own name.

    Attributes:
        name: the key in ``node.scores``.
    """

    name: str

    async def score(self, nodes: Sequence[Node]) -> None:
        """Write ``node.scores[self.name]`` for every node that has none yet.

        Tokens are charged to the budget of the node's tree first; a node that the budget cannot pay for stays
        unscored, as does one that is longer than a model reads. A score that is not a finite number is an error.
        """
        ...
