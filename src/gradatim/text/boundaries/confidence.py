"""Steps that end where the model was unsure how to go on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.text.boundaries.base import Boundary, Written
from gradatim.tree import Tree


@part
class Confidence(Boundary):
    """A step ends where the token that follows had a low probability (AdaptiveStep, 2025, arXiv:2502.13943).

    Such a token is a decision, wherever it stands in a line. The paper's threshold is what 2 % of a policy's tokens
    fall below, which :func:`probability_quantile` reads off stored trees. Probabilities are the model's own, at
    temperature 1, whatever the sampling is. A step is never blank, and its end token ends no step before it.

    Raises:
        GradatimError: where a step ends, if the log-probabilities of its tokens are not known: in a whole text, or
            behind a server that does not tell them.
    """

    below: Annotated[float, Field(gt=0, le=1)]
    """The probability below which a token ends a step."""
    at: Literal["before", "after"] = "before"
    """Whether the step ends before that token, so that the next step decides anew, or after it, so that the step is
    judged with what was decided."""
    min_tokens: PositiveInt = 1
    """Tokens that a step has at least."""
    max_tokens: PositiveInt | None = None
    """Tokens after which a step ends however sure the policy is; `null` is never."""

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise GradatimError(f"max_tokens is {self.max_tokens}, less than min_tokens={self.min_tokens}; raise it")

    def end(self, written: Written) -> int | None:
        values = written.log_probabilities
        if values is None:
            raise GradatimError(
                "the boundary 'confidence' ends steps by the log-probabilities of their tokens, which are not known "
                "here; use a policy that tells them (a model in this process, vLLM, a server with logprobs), or "
                "another boundary"
            )
        threshold, longest = math.log(self.below), self.max_tokens or math.inf
        for count in range(self.min_tokens, len(values) + 1):
            told = count if self.at == "before" else count - 1  # the token that would end a step of so many
            ends = count >= longest or (told < len(values) and values[told] < threshold)
            if ends and (place := _place(written, count)) is not None:
                return place
        return None

    @property
    def looks_ahead(self) -> bool:
        return self.at == "before"

    @property
    def words(self) -> str:
        return f"what stands {self.at} a token of a probability below {self.below:g}"


def _place(written: Written, count: int) -> int | None:
    """The place behind so many tokens; ``None`` if nothing but white space stands before it."""
    place, visible = written.at_token(count), re.search(r"\S", written.text)
    if place is None or visible is None or place < written.at_character(visible.end()):
        return None
    return place


def probability_quantile(trees: Iterable[Tree], quantile: float) -> float:
    """The probability that this share of the tokens fell below that policies wrote into trees.

    A step counts as often as it was sampled.

    Args:
        trees: with the log-probabilities of their steps.
        quantile: from 0 to 1; 0.02 is the paper's.

    Raises:
        GradatimError: if the quantile is none, or no step has log-probabilities.
    """
    if not 0 <= quantile <= 1:
        raise GradatimError(
            f"a quantile lies from 0 to 1, but this is {quantile}; 0.02 ends steps at 2 % of the tokens"
        )
    steps = [(node.step.log_probabilities, node.multiplicity) for tree in trees for node in tree.nodes]
    values = np.concatenate([np.repeat(each, times) for each, times in steps] or [np.empty(0)])
    if not len(values):
        raise GradatimError(
            "no step of these trees has log-probabilities; grow them with a policy that tells those of its tokens"
        )
    return float(np.quantile(np.exp(values), quantile))
