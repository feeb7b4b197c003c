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
    width: int = 4,
    branch: int = 4,
    max_depth: int = 64,
    aggregate: Aggregate = "last",
    sampling: Sampling | None = None,
) -> Tree:
    """Search by step beam search guided by a scorer (Snell et al., 2024, arXiv:2408.03314).

    Every round proposes ``width * branch`` steps, spread evenly over the frontier (the first round: all below the
    root), scores them and keeps the ``width`` best open ones; identical steps take one place. Finished solutions leave
    the frontier and stay candidates. The search ends when nothing is open, the budget is spent or ``max_depth`` is
    reached. Choose the answer by score alone with ``best_of_n(tree, scorer.name, aggregate=aggregate)``.

    The policy charges the prompt once and every generated token, the scorer what it reads. A step that the budget left
    unscored ranks below all scored ones; equal scores rank in the order in which the steps were proposed.

    Args:
        tree: the problem's tree.
        policy: proposes steps.
        scorer: scores them; higher is better.
        width: partial solutions kept in each round.
        branch: steps proposed for each of them.
        max_depth: steps of a solution at most.
        aggregate: rank by the last step's score, or by the minimum, product or mean over the path.
        sampling: how steps are sampled; the policy's own way by default.

    Raises:
        GradatimError: if ``width`` or ``branch`` is below 1.
    """
    if width < 1 or branch < 1:
        raise GradatimError(f"beam search needs a width and a branch of at least 1, got {width} and {branch}")
    frontier = [tree.root]
    for _ in range(max_depth):
        if not frontier or tree.budget.spent:
            break
        children = await policy.expand(frontier, width * branch // len(frontier), sampling)
        await scorer.score(children)
        frontier = best([child for child in children if child.open], width, scorer.name, aggregate)
    return tree


def best(nodes: Sequence[Node], count: int, name: str, aggregate: Aggregate = "last") -> list[Node]:
    """The ``count`` nodes of the highest score, best first; unscored ones come last, equals in the given order."""

    def descending(node: Node) -> float:
        score = path_score(node, name, aggregate)
        return math.inf if score is None else -score

    return sorted(nodes, key=descending)[:count]
