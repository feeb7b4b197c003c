"""Which partial solutions are the most promising, by the scores of their steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradatim.errors import GradatimError
from gradatim.scorers.aggregation import Aggregate, solution_score
from gradatim.tree import Node


def path_score(node: Node, name: str, aggregate: Aggregate = "last") -> float | None:
    """The score of the solution that ends with ``node``, from what the scorer ``name`` gave its steps.

    See :func:`gradatim.scorers.aggregation.solution_score`. ``None`` if a score that is needed is missing.

    Raises:
        GradatimError: if a score is not a finite number, so that nothing can be ranked by it.
    """
    steps = [node] if aggregate == "last" else node.path()[1:]
    scores = [checked_score(step, name) for step in steps if name in step.scores]
    return solution_score(scores, aggregate) if scores and len(scores) == len(steps) else None


def checked_score(node: Node, name: str) -> float:
    """The score that ``name`` gave a node.

    Raises:
        GradatimError: if it is not a finite number.
    """
    score = node.scores[name]
    if not math.isfinite(score):
        raise GradatimError(
            f"the scorer {name!r} gave a step of problem {node.tree.problem.id!r} the score {score}, which is not a "
            "finite number; use a scorer that gives one, or leave the step unscored"
        )
    return score


def best(nodes: Sequence[Node], count: int, name: str, aggregate: Aggregate = "last") -> list[Node]:
    """The ``count`` nodes of the highest score, best first; unscored ones come last, equals in the given order."""

    def descending(node: Node) -> float:
        score = path_score(node, name, aggregate)
        return math.inf if score is None else -score

    return sorted(nodes, key=descending)[:count]


def softmax_weights(
    scores: Sequence[float | None], temperature: float, counts: Sequence[int] | None = None
) -> list[float]:
    """``[scores]``: shares of 1 in proportion to ``count * exp(score / temperature)``.

    What has no score has no share, unless nothing has one: then all scores are taken to be equal. Temperature 0 gives
    everything to the first of the highest score.
    """
    highest = max((score for score in scores if score is not None), default=None)
    known = [0.0 if highest is None else score for score in scores]
    top = highest or 0.0
    if temperature == 0:
        best_place = known.index(top) if known else 0
        return [float(place == best_place) for place in range(len(known))]
    exponents = [-math.inf if score is None else (score - top) / temperature for score in known]
    weights = [
        count * math.exp(exponent) for count, exponent in zip(counts or [1] * len(scores), exponents, strict=True)
    ]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
