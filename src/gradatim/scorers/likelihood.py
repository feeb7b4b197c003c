"""How likely a model finds a step, as its score: what needs no training, and every trained scorer should beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradatim.engine.reader import Reader
from gradatim.part import part
from gradatim.scorers.base import Context, ModelName, ScorerPart
from gradatim.tree import Node, Tree


@part
class LikelihoodPart(ScorerPart):
    """The geometric mean of the probabilities of a step's tokens under a language model."""

    model: ModelName = "policy"
    """The model."""

    def open(self, context: Context) -> LikelihoodScorer:
        return LikelihoodScorer(context.reader(self.model), self.name)


class LikelihoodScorer:
    """Scores a step by the geometric mean of its tokens' probabilities; a step without tokens has 1.

    Args:
        reader: reads the model.
        name: the key in ``node.scores``.
    """

    def __init__(self, reader: Reader, name: str = "likelihood") -> None:
        self.reader = reader
        self.name = name

    async def score(self, nodes: Sequence[Node]) -> None:
        """Write the likelihood of each step; see :class:`gradatim.scorers.base.Scorer`."""
        unscored = [node for node in dict.fromkeys(nodes) if self.name not in node.scores]
        readings = await self.reader.read(unscored, log_probabilities=True)
        for node, reading in zip(unscored, readings, strict=True):
            if reading is not None and reading.log_probabilities is not None:
                found = reading.log_probabilities
                node.scores[self.name] = math.exp(sum(found) / max(1, len(found)))

    def release(self, tree: Tree) -> None:
        """Drop what is cached of a tree that is done."""
        self.reader.release(tree)
