"""Values from a scorer: every step of a grown tree is judged."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Annotated, ClassVar

from gradatim.part import PartOf, part
from gradatim.scorers.base import Context, ScorerPart
from gradatim.tree import Node, Tree
from gradatim.values.base import Values

UNVALUED = "unvalued"
"""The key in a tree's metadata of how many steps a scorer gave no value, and of how many, by the values' name."""


@part
class Scored(Values):
    """What a scorer says of every step: rollouts, a prover's progress, several interns, any other.

    Steps are judged from the root downwards, so that solutions that were completed from a step serve those below it.
    How many steps the scorer left without a value is noted with the tree (:data:`UNVALUED`), and a run tells of it.
    """

    samples: ClassVar[bool] = True

    scorer: Annotated[ScorerPart, PartOf("scorers")]
    """What judges the steps, under the values' key."""

    def __post_init__(self) -> None:
        self._keyed()  # scorers within it may have that key

    @property
    def written(self) -> set[str]:
        """The values, and what scorers within the scorer say."""
        return {self.key, *(each.name for each in self.scorer.within)}

    def _keyed(self) -> ScorerPart:
        return replace(self.scorer, key=self.key)

    async def __call__(self, tree: Tree, context: Context) -> None:
        scorer = self._keyed().open(context)
        levels: dict[int, list[Node]] = {}
        for node in tree.nodes[1:]:
            levels.setdefault(node.depth, []).append(node)
        try:
            for depth in sorted(levels):
                await scorer.score(levels[depth])
        finally:
            scorer.release(tree)
        steps = list(chain.from_iterable(levels.values()))  # not what was completed from them
        missing = sum(self.key not in node.scores for node in steps)
        tree.metadata.setdefault(UNVALUED, {})[self.key] = [missing, len(steps)]
