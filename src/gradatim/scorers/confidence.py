"""How sure a policy was of what it wrote, from the log-probabilities on the tree; nothing is read for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from gradatim.errors import GradatimError
from gradatim.tree import Node, Step


def recorded(step: Step) -> tuple[float, ...]:
    """The log-probability of each token of a step.

    Raises:
        GradatimError: if they are unknown.
    """
    if not step.log_probabilities and (step.tokens or step.text):
        raise GradatimError(
            f"the step {step.text.strip()[:40]!r} has no log-probabilities to tell how sure its policy was; take a "
            "policy that records them (a server may not tell them)"
        )
    return step.log_probabilities


def path_log_probabilities(node: Node) -> list[float]:
    """The log-probability of each token that was written from below the prompt to ``node``.

    Raises:
        GradatimError: if those of a step are unknown.
    """
    return [value for each in node.path()[1:] for value in recorded(each.step)]


def mean(log_probabilities: Sequence[float]) -> float:
    """The mean log-probability of tokens, that of no token being 0: the logarithm of their perplexity, negated."""
    return math.fsum(log_probabilities) / max(1, len(log_probabilities))


def likelihood_of(steps: Sequence[Node]) -> float:
    """The mean log-probability of the tokens of some steps.

    Raises:
        GradatimError: if those of a step are unknown.
    """
    return mean([value for node in steps for value in recorded(node.step)])


def future_likelihood(node: Node, end: Node) -> float:
    """The mean log-probability of a future's tokens; a candidate that ends the solution is its own future."""
    return likelihood_of(end.path()[node.depth + 1 :] or [node])


def lowest_window(log_probabilities: Sequence[float], window: int) -> float:
    """The lowest mean of ``window`` consecutive tokens; the mean of all where there are not more (the lowest group
    confidence of Fu et al., *DeepConf*, 2025, arXiv:2508.15260, by the tokens that were written)."""
    if window >= len(log_probabilities):
        return mean(log_probabilities)
    sums = list(accumulate(log_probabilities, initial=0.0))
    return min(sums[end] - sums[end - window] for end in range(window, len(sums))) / window
