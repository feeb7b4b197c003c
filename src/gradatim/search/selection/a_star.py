"""A*: the least cost, of what was done and of what is still to come."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import NonNegativeFloat

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.search.ranking import path_score
from gradatim.search.selection.base import Queue
from gradatim.search.tree_state import TreeState
from gradatim.tree import Node

_TOTALS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "mean": lambda costs: math.fsum(costs) / len(costs),
    "max": max,
    "last": lambda costs: costs[-1],
}


@part
class AStar(Queue):
    """A*: the least cost f = g + h, so far and still to come (Q*: Wang et al., 2024, arXiv:2406.14283).

    Also ToolChain* (Zhuang et al., 2023, arXiv:2310.13227) and A*-decoding (Chatziveroglou, 2025, arXiv:2505.13672),
    whose estimate of what is still to come is one minus the reward model's score. The cost so far, g, is made of the
    steps' costs; the estimate, h, of the scorer's value.
    A finished solution's value counts like any other's, so one that the scorer finds wrong has far to go.

    Where costs are the policy's (``cost="likelihood", total="sum"``) and the value of a step is no less than the
    probability of the likeliest right continuation (``future="log"``), h never says too much: the first solution that
    ranks above all that could be expanded is then the likeliest right one, as far as its steps were drawn.
    """

    cost: Literal["score", "likelihood"] = "score"
    """What a step costs: one minus its `score`, or its negative log-`likelihood` under the policy."""
    total: Literal["sum", "mean", "max", "last"] = "mean"
    """What a path costs: the `sum`, the `mean` or the `max` of its steps' costs, or what its `last` step costs."""
    future: Literal["complement", "log"] = "complement"
    """What a value says of the cost to come: one minus the value, or its negative `log`arithm."""
    weight: NonNegativeFloat = 1.0
    """Of the cost to come; more is greedier, and 0 looks at the cost so far alone."""

    def priority(self, node: Node, state: TreeState) -> float:
        return -(self._so_far(node, state) + self._to_come(node, state))

    def why(self, node: Node, state: TreeState) -> str:
        so_far, to_come = self._so_far(node, state), self._to_come(node, state)
        return f"cost {so_far + to_come:.2f} = {so_far:.2f} so far + {to_come:.2f} to come"

    def _so_far(self, node: Node, state: TreeState) -> float:
        return _TOTALS[self.total]([self._cost(step, state) for step in node.path()[1:]])

    def _to_come(self, node: Node, state: TreeState) -> float:
        value = state.value(node)
        if self.future == "complement" or not self.weight:
            return self.weight * (1.0 - value)
        if value < 0:
            raise GradatimError(
                f"a value of {value} has no logarithm; use a scorer that gives probabilities, or future: complement"
            )
        return self.weight * -math.log(value) if value else math.inf

    def _cost(self, node: Node, state: TreeState) -> float:
        if self.cost == "score":
            score = path_score(node, state.scorer)
            if score is None:
                raise GradatimError(
                    f"a step of problem {node.tree.problem.id!r} has no score of {state.scorer!r}, so A* does not know "
                    "what it costs; go on with the scorer that the tree was searched with"
                )
            return 1.0 - score
        if not node.step.log_probabilities:
            raise GradatimError(
                f"the log-probabilities of steps of problem {node.tree.problem.id!r} are not known, so A* cannot count "
                "by likelihood; use cost: score, or a policy that gives them"
            )
        return -math.fsum(node.step.log_probabilities)
