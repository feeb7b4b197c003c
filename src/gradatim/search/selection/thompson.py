"""Thompson sampling: wider or deeper, as a draw from what is believed of each turns out."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import chain
from typing import Literal

from pydantic import PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.search.selection.base import Descent
from gradatim.search.tree_state import TreeState
from gradatim.tree import Node

Posterior = Literal["beta", "gaussian"]


@part
class Thompson(Descent):
    """Thompson sampling: a new step below a node, or deeper into one of its children (AB-MCTS, arXiv:2503.04412).

    This is AB-MCTS with node aggregation (Inoue et al., *Wider or Deeper?*, 2025). What a new step may be worth is
    learned from the values of the node's children, what going deeper may be worth from the values of all below them. A
    value is drawn from each belief; if the new step's is higher, the node is expanded again. Otherwise the child to go
    on with is drawn alike, from its own value and all below it (the paper leaves its own out, since going deeper there
    is to write another answer, and not the next step of the same).

    Random numbers come from the tree's seed and the place in it.
    """

    posterior: Posterior = "beta"
    """The belief: `beta` for values from 0 to 1 (prior: Jeffreys'), or `gaussian` for any (prior: mean 0, variance 0.1,
    each worth one value)."""
    patience: PositiveInt = 3
    """Expansions of a node without a new step after which it grows no wider."""

    def choose(self, node: Node, state: TreeState) -> tuple[Node, str]:
        chance = random.Random(f"thompson {node.key} {state.visits(node)} {state.in_vain(node)}")
        below = {child: state.own_values_below(child) for child in state.children[node]}
        own = {child: _known(state.own_value(child)) for child in below}
        wider = self._draw(chance, list(chain(*own.values())))
        deeper = self._draw(chance, list(chain(*below.values())))
        children = state.open_children(node)
        if state.may_expand(node) and (wider > deeper or not children):
            return node, f"wider: a new step was drawn at {wider:.2f}, going deeper at {deeper:.2f}"
        drawn = {child: self._draw(chance, own[child] + below[child]) for child in children}
        child = max(children, key=lambda each: drawn[each])
        return child, f"deeper: drawn at {drawn[child]:.2f}, the highest of {len(children)}"

    def _draw(self, chance: random.Random, values: Sequence[float]) -> float:
        return draw_beta(chance, values) if self.posterior == "beta" else draw_gaussian(chance, values)


def _known(value: float | None) -> list[float]:
    return [] if value is None else [value]


def draw_beta(chance: random.Random, values: Sequence[float]) -> float:
    """A draw from the posterior of a probability: Beta(1/2 + sum of values, 1/2 + sum of one minus values).

    Raises:
        GradatimError: if a value is not from 0 to 1.
    """
    for value in values:
        if not 0.0 <= value <= 1.0:
            raise GradatimError(
                f"a value of {value} is no probability; use posterior: gaussian, or a scorer that gives probabilities"
            )
    total = math.fsum(values)
    return chance.betavariate(0.5 + total, 0.5 + len(values) - total)


def draw_gaussian(chance: random.Random, values: Sequence[float]) -> float:
    """A draw from the posterior of a mean: normal with a normal-inverse-chi-squared prior (mean 0, variance 0.1, each
    worth one value)."""
    count = len(values)
    mean = math.fsum(values) / count if count else 0.0
    spread = math.fsum((value - mean) ** 2 for value in values) + count * mean**2 / (1 + count)
    scale = 0.1 + spread  # degrees of freedom times variance
    variance = scale / 2 / chance.gammavariate((1 + count) / 2, 1.0)
    return chance.gauss(count * mean / (1 + count), math.sqrt(variance / (1 + count)))
