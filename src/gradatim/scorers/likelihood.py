"""How likely a model finds a step, as its score: what needs no training, and every trained scorer should beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradatim.engine.reader import Reader
from gradatim.part import part
from gradatim.scorers.base import Context, ModelName, ScorerPart, StepScorer
from gradatim.tree import Node, Tree


@part
class LikelihoodPart(ScorerPart):
    """The geometric mean of the probabilities of a step's tokens under a language model."""

    model: ModelName = "policy"
    """The model."""

    def open(self, context: Context) -> LikelihoodScorer:
        return LikelihoodScorer(context.reader(self.model), self.name)


class LikelihoodScorer(StepScorer):
    """Scores a step by the geometric mean of its tokens' probabilities; a step without tokens has 1.

    Args:
        reader: reads the model.
        name: the key in ``node.scores``.
    """

    def __init__(self, reader: Reader, name: str = "likelihood") -> None:
        super().__init__(name)
        self.reader = reader

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        readings = await self.reader.read(nodes, log_probabilities=True)
        found = [None if reading is None else reading.log_probabilities for reading in readings]
        return [None if each is None else math.exp(sum(each) / max(1, len(each))) for each in found]

    def release(self, tree: Tree) -> None:
        """Drop what is cached of a tree that is done."""
        self.reader.release(tree)
