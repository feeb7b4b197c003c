"""A value head as a scorer: what a policy with a head on it, or another model, expects of a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradatim.engine.reader import Reader
from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.scorers.base import Context, ModelName, ScorerPart, StepScorer
from gradatim.tree import Node, Tree


@part
class ValueHeadPart(ScorerPart):
    """A value head: the value that a head on a model reads at a step's end (AlphaMath, 2024, arXiv:2405.03553).

    The head was trained with the model, by an objective such as `value` or `svpo`. On the policy itself, what it wrote
    is not read again.
    """

    model: ModelName = "policy"
    """The model with the head."""
    head: str = "value"
    """The head's name."""

    def open(self, context: Context) -> ValueHeadScorer:
        return ValueHeadScorer(context.reader(self.model), self.name, self.head)


class ValueHeadScorer(StepScorer):
    """Scores a step by the sigmoid of what a head of one output says at its end.

    Args:
        reader: reads the model.
        name: the key in ``node.scores``.
        head: the head's name.

    Raises:
        GradatimError: if the model has no such head.
    """

    def __init__(self, reader: Reader, name: str, head: str = "value") -> None:
        if head not in reader.heads:
            raise GradatimError(
                f"the model has no head {head!r}; train one with it, by an objective that has such a head (value, svpo)"
            )
        super().__init__(name)
        self.reader = reader
        self.head = head

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        readings = await self.reader.read(nodes, heads=(self.head,))
        return [None if each is None else float(torch.sigmoid(each.heads[self.head])) for each in readings]

    def release(self, tree: Tree) -> None:
        """Drop what is cached of a tree that is done."""
        self.reader.release(tree)
