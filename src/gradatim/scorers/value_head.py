"""A value head as a scorer: what a policy with a head on it, or another model, expects of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from gradatim.engine.reader import Reader
from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.scorers.base import Context, ModelName, ScorerPart, StepScorer
from gradatim.scorers.path_values import PathValues
from gradatim.tree import Node, Tree

Output = Literal["probability", "raw"]


@part
class ValueHeadPart(ScorerPart):
    """A value head: the value that a head on a model reads at a step's end (AlphaMath, 2024, arXiv:2405.03553).

    The head was trained with the model, by an objective such as `value`, `svpo` or `oreo`, or on it, by
    `hidden_verifier`. On the policy itself, what it wrote is not read again: one forward pass serves the policy and its
    head.
    """

    model: ModelName = "policy"
    """The model with the head."""
    head: str = "value"
    """The head's name: `value`; `verifier` of `hidden_verifier`; `contribution` and `oreo`'s `soft_value`, which want
    `output: raw`."""
    output: Output = "probability"
    """The score: the sigmoid of what the head says, a `probability`, or what it says, `raw`."""
    accumulate: bool = False
    """Sum it over the steps from the first one on, so that contributions become progress (arXiv:2505.20732)."""

    def open(self, context: Context) -> ValueHeadScorer:
        return ValueHeadScorer(
            context.reader(self.model), self.name, self.head, output=self.output, accumulate=self.accumulate
        )


class ValueHeadScorer(StepScorer):
    """Scores a step by what a head of one output says at its end.

    Args:
        reader: reads the model.
        name: the key in ``node.scores``.
        head: the head's name.
        output: the sigmoid of it, or what it says as it is.
        accumulate: sum it over the path.

    Raises:
        GradatimError: if the model has no such head, or, when it is read, one of several outputs.
    """

    def __init__(
        self,
        reader: Reader,
        name: str,
        head: str = "value",
        *,
        output: Output = "probability",
        accumulate: bool = False,
    ) -> None:
        if head not in reader.heads:
            raise GradatimError(
                f"the model has no head {head!r}; train one with it, by an objective that has such a head (value, "
                "svpo, oreo, hidden_verifier, contribution)"
            )
        super().__init__(name)
        self.reader = reader
        self.head = head
        self.output = output
        self.accumulate = accumulate
        self._contributions = PathValues(self._said)

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        if not self.accumulate:
            return await self._said(nodes)
        paths = await self._contributions.along(nodes)
        return [None if path is None else math.fsum(path) for path in paths]

    async def _said(self, nodes: Sequence[Node]) -> list[float | None]:
        """What the head says of each step alone."""
        readings = await self.reader.read(nodes, heads=(self.head,))
        found = [None if each is None else each.heads[self.head] for each in readings]
        if any(each is not None and each.numel() != 1 for each in found):
            raise GradatimError(
                f"the head {self.head!r} says several things of a step, which make no score; name another"
            )
        if self.output == "probability":
            found = [None if each is None else torch.sigmoid(each) for each in found]
        return [None if each is None else float(each) for each in found]

    def release(self, tree: Tree) -> None:
        """Drop what is cached of a tree that is done."""
        self._contributions.forget(tree)
        self.reader.release(tree)
