"""Step beam search: keep the best partial solutions by score, and continue only those."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradatim.errors import GradatimError
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.selection import Aggregate, path_score
from gradatim.tree import Node, Tree


async def beam_search(
    tree: Tree,
    policy: Policy,
    scorer: Scorer,
    *,
    width: int | Sequence[int] = 4,
    branch: int | Sequence[int] = 4,
    aggregate: Aggregate = "last",
    sampling: Sampling | None = None,
) -> Tree:
    """Search by step beam search guided by a scorer (Snell et al., 2024, arXiv:2408.03314).

    Every round proposes ``width * branch`` steps, spread evenly over the frontier (the first round: all below the
    root), scores all that are not cut off and keeps the ``width`` best open ones; identical steps take one place.
    Finished solutions leave the frontier and stay candidates. The search ends when nothing is open or the budget is
    spent. Choose the answer by score alone with ``best_of_n(tree, scorer.name, aggregate=aggregate)``.

    Both numbers may be given round by round, the last one for all that follow: where early scores say little,
    ``width=(4, 1), branch=(1, 16, 1)`` follows four first steps, prunes among the sixteen second ones, and finishes the
    best.

    The policy charges the prompt once and every generated token, the scorer what it reads. A step that the budget left
    unscored ranks below all scored ones; equal scores rank in the order in which the steps were proposed.

    Args:
        tree: the problem's tree.
        policy: proposes steps.
        scorer: scores them; higher is better.
        width: partial solutions kept in each round, or a sequence of them.
        branch: steps proposed for each of them, or a sequence.
        aggregate: rank by the last step's score, or by the minimum, product or mean over the path.
        sampling: how steps are sampled; the policy's own way by default.

    Raises:
        GradatimError: if a width or a branch is below 1, or a sequence is empty.
    """
    widths, branches = _by_round(width, "width"), _by_round(branch, "branch")
    frontier = [tree.root]
    depth = 0
    while frontier and not tree.budget.spent:
        keep, each = widths[min(depth, len(widths) - 1)], branches[min(depth, len(branches) - 1)]
        children = await policy.expand(frontier, max(1, keep * each // len(frontier)), sampling)
        await scorer.score([child for child in children if not child.step.end.cuts_off])
        frontier = best([child for child in children if child.open], keep, scorer.name, aggregate)
        depth += 1
    return tree


def _by_round(value: int | Sequence[int], name: str) -> Sequence[int]:
    values = [value] if isinstance(value, int) else list(value)
    if not values or min(values) < 1:
        raise GradatimError(f"beam search needs a {name} of at least 1 in every round, got {value}")
    return values


def best(nodes: Sequence[Node], count: int, name: str, aggregate: Aggregate = "last") -> list[Node]:
    """The ``count`` nodes of the highest score, best first; unscored ones come last, equals in the given order."""

    def descending(node: Node) -> float:
        score = path_score(node, name, aggregate)
        return math.inf if score is None else -score

    return sorted(nodes, key=descending)[:count]
