"""How sure a model is of what it wrote, as a score: what needs no training, and every trained scorer should beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor

from gradatim.engine.distributions import Measure, TopConfidence, entropy, self_certainty
from gradatim.engine.reader import Reader
from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.scorers.base import Context, ModelName, ScorerPart, StepScorer
from gradatim.scorers.confidence import lowest_window
from gradatim.scorers.path_values import PathValues
from gradatim.tree import Node, Tree

MeasureName = Literal["log_probability", "probability", "perplexity", "entropy", "self_certainty", "top_confidence"]
Extent = Literal["step", "group", "tail", "path"]

_AFTER_MEAN: dict[str, Callable[[float], float]] = {
    "probability": math.exp,
    "perplexity": lambda mean: -math.exp(-mean),
}


@part
class UncertaintyPart(ScorerPart):
    """How sure a model is: probabilities of tokens, entropy or confidence (DeepConf, 2025, arXiv:2508.15260).

    Higher is surer, whatever the measure. Means are over tokens: of the step, of the lowest of the sliding windows on
    the path to it (a group), of the end of the path, or of all of it.
    """

    model: ModelName | None = None
    """Whose uncertainty it is. `null` is whoever wrote the step: its recorded log-probabilities, which cost nothing."""
    measure: MeasureName = "probability"
    """Of tokens that were written: `log_probability` (nats, to 0), `probability` (the geometric mean, 0 to 1) or
    `perplexity` (negated, to -1). Of whole distributions, which a `model` has to read: `entropy` (negated, nats, to 0),
    `self_certainty` (nats, from 0; Kang et al., 2025, arXiv:2502.18581), or `top_confidence` (nats: minus the mean
    log-probability of the likeliest tokens)."""
    over: Extent = "step"
    """Which tokens: those of the `step`, the least sure `group` of the path so far, its `tail`, or the whole `path`."""
    window: PositiveInt = 128
    """Tokens of a group and of the tail; a path that has fewer is one group."""
    top: PositiveInt = 20
    """How many of the likeliest tokens count in `top_confidence`."""

    def __post_init__(self) -> None:
        if self.model is None and self.measure in ("entropy", "self_certainty", "top_confidence"):
            raise GradatimError(
                f"{self.measure} is of the whole vocabulary, which is not recorded with a step; name the model that "
                "reads it, such as model='policy'",
                options=("model='policy'",),
            )

    def open(self, context: Context) -> UncertaintyScorer:
        reader = None if self.model is None else context.reader(self.model)
        return UncertaintyScorer(reader, self.name, self.measure, self.over, window=self.window, top=self.top)


class UncertaintyScorer(StepScorer):
    """Scores a step by how sure a model is of it; see :class:`UncertaintyPart`.

    A step without tokens and text, with which a solution ends right behind the step before, has that step's score. A
    prompt has none, and neither has a step whose log-probabilities nobody recorded where they are not read.

    Args:
        reader: reads the model; without one, scores are made of recorded log-probabilities.
        name: the key in ``node.scores``.
        measure, over, window, top: as in :class:`UncertaintyPart`.
    """

    def __init__(
        self,
        reader: Reader | None = None,
        name: str = "uncertainty",
        measure: MeasureName = "probability",
        over: Extent = "step",
        *,
        window: int = 128,
        top: int = 20,
    ) -> None:
        super().__init__(name)
        self.reader = reader
        self._over, self._window = over, window
        self._after_mean = _AFTER_MEAN.get(measure, float)
        measures: dict[str, Measure] = {
            "entropy": _negative_entropy,
            "self_certainty": self_certainty,
            "top_confidence": TopConfidence(top),
        }
        self._measure = measures.get(measure)
        self._values = PathValues(self._of_tokens)

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        judged = [_with_something_written(node) for node in nodes]
        if self._over == "step":
            found = await self._values.of(judged)
        else:
            paths = await self._values.along(judged)
            found = [None if path is None else tuple(chain.from_iterable(path)) for path in paths]
        return [self._score(values) if values else None for values in found]

    async def _of_tokens(self, nodes: Sequence[Node]) -> list[tuple[float, ...] | None]:
        """For each step how sure the model was of each of its tokens: the higher, the surer."""
        if self.reader is None:
            return [node.step.log_probabilities or _of_nothing(node) for node in nodes]
        if self._measure is None:
            readings = await self.reader.read(nodes, log_probabilities=True)
            return [None if each is None else each.log_probabilities for each in readings]
        readings = await self.reader.read(nodes, measures=(self._measure,))
        return [None if each is None else each.measures[0] for each in readings]

    def _score(self, values: Sequence[float]) -> float:
        window = self._window if self._over in ("group", "tail") else len(values)
        return self._after_mean(lowest_window(values[-window:] if self._over == "tail" else values, window))

    def release(self, tree: Tree) -> None:
        """Drop what is kept of a tree that is done."""
        self._values.forget(tree)
        if self.reader is not None:
            self.reader.release(tree)


def _negative_entropy(distributions: Tensor) -> Tensor:
    return -entropy(distributions)


def _with_something_written(node: Node) -> Node:
    """The node, or the nearest one above it whose step is not empty."""
    while node.parent is not None and not node.step.tokens and not node.step.text:
        node = node.parent
    return node


def _of_nothing(node: Node) -> tuple[float, ...] | None:
    """The values of a step without log-probabilities: none, if nothing was written in it."""
    return None if node.step.tokens or node.step.text else ()
