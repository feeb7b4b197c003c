"""PUCT: value, and a bonus for what the policy finds likely and was visited little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeFloat

from gradatim.part import part
from gradatim.scorers.confidence import mean
from gradatim.search.ranking import softmax_weights
from gradatim.search.selection.base import Descent, most_promising
from gradatim.search.tree_state import TreeState
from gradatim.tree import Node


@part
class Puct(Descent):
    """PUCT: the child with the highest value plus a bonus for likely steps that were visited little (arXiv:1712.01815).

    It is of Rosin (2011), in the form of AlphaZero (Silver et al., 2017, arXiv:1712.01815).
    """

    exploration: NonNegativeFloat = 1.0
    """More goes oftener where little is known."""
    prior: Literal["policy", "uniform"] = "policy"
    """How likely each of some siblings is: by the `policy`'s log-probabilities per token, or `uniform`."""

    def choose(self, node: Node, state: TreeState) -> tuple[Node, str]:
        siblings, children, above = state.children[node], state.open_children(node), state.visits(node)
        shares = priors(siblings) if self.prior == "policy" else [1 / len(siblings)] * len(siblings)
        prior = dict(zip(siblings, shares, strict=True))
        promises = [
            puct(state.value(child), prior[child], state.visits(child), above, self.exploration) for child in children
        ]
        return most_promising(children, promises, "PUCT", state)


def puct(value: float, prior: float, visits: float, parent_visits: float, exploration: float) -> float:
    """``value + exploration * prior * sqrt(parent_visits) / (1 + visits)``."""
    return value + exploration * prior * math.sqrt(parent_visits) / (1 + visits)


def priors(siblings: Sequence[Node]) -> list[float]:
    """``[siblings]``: softmax of the mean log-probability per token, so that long steps are not at a disadvantage.

    Uniform where the policy's log-probabilities of a step are unknown, or the steps are of several policies.
    """
    sources = {node.step.source for node in siblings}
    if len(sources) > 1 or not all(node.step.log_probabilities for node in siblings):
        return [1 / len(siblings)] * len(siblings)
    return softmax_weights([mean(node.step.log_probabilities) for node in siblings], 1.0)
