"""One step that is to be read, and what was read of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from gradatim.engine.distributions import Measure
from gradatim.errors import GradatimError
from gradatim.tree import Node


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model says of a step; what was not asked for is not there.

    Attributes:
        log_probabilities: of each token of the step given its path, at temperature 1; none of a prompt's.
        measures: for each measure that was asked for one number for each of these tokens.
        hidden: (hidden size,) the last hidden state at the step's last token.
        heads: (outputs,) in float32, what each head says there (of the model's own, what the reader makes of it).
        attention: how much the step's last token attends to the prompt and to each step of its path (with its
            observation), itself included: summed over their tokens, the mean over the heads of the last layer.
    """

    log_probabilities: tuple[float, ...] | None = None
    measures: tuple[tuple[float, ...], ...] = ()
    hidden: Tensor | None = None
    heads: Mapping[str, Tensor] = field(default_factory=dict)
    attention: tuple[float, ...] | None = None


@dataclass(slots=True, eq=False)
class Request:
    """One node that is to be read.

    Attributes:
        read: the node in the model's tokens.
        own: which tokens of ``read``'s step are the node's own.
        recorded: its log-probabilities, where they need not be computed.
        log_probabilities, measures, hidden, heads: what is asked for.
        ends: of the prompt and of each step of the path, one past its last token in the path as it is read, if
            attention is asked for.
        keep: whether what is computed for it is cached.
        done: has the reading.
    """

    read: Node
    own: range
    recorded: tuple[float, ...] | None
    log_probabilities: bool
    measures: tuple[Measure, ...]
    hidden: bool
    heads: tuple[str, ...]
    ends: tuple[int, ...]
    keep: bool
    done: asyncio.Future[Reading]

    def predictors(self) -> list[tuple[Node, range]]:
        """The tokens after which the model predicts the step's own ones, in order."""
        if not self.own or not (self.measures or (self.log_probabilities and self.recorded is None)):
            return []
        before = [] if self.own.start else [_last_token(self.read.parent)]
        inner = range(max(0, self.own.start - 1), self.own.stop - 1)
        return [*before, (self.read, inner)] if inner else before

    def end(self) -> list[tuple[Node, range]]:
        """The step's last token, if what the model says there is asked for."""
        last = len(self.read.step.tokens)
        return [(self.read, range(last - 1, last))] if self.at_end else []

    @property
    def at_end(self) -> bool:
        """Whether the model is read at the step's last token."""
        return bool(self.hidden or self.heads or self.ends)


def _last_token(node: Node | None) -> tuple[Node, range]:
    """The last token of a path."""
    while node is not None:
        length = len(node.step.tokens_with_observation)
        if length:
            return node, range(length - 1, length)
        node = node.parent
    raise GradatimError("a prompt without tokens predicts no first step; tokenize it with at least a start token")


def by_step(weights: Tensor, ends: Sequence[int]) -> tuple[float, ...]:
    """Weights of tokens, (tokens,), summed from one end to the next."""
    return tuple(float(weights[start:stop].sum()) for start, stop in pairwise((0, *ends)))
