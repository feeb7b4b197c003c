"""Independent sampling: whole solutions from the root, the baseline of every search."""

from __future__ import annotations

from typing import Literal

from gradatim.errors import GradatimError
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.tree import Node, Tree


async def independent_sampling(
    tree: Tree,
    policy: Policy,
    scorer: Scorer | None = None,
    *,
    n: int | None = 8,
    wave: int = 8,
    score: Literal["solutions", "steps"] = "solutions",
    sampling: Sampling | None = None,
) -> Tree:
    """Sample ``n`` solutions from the root, and score each as soon as it is there.

    Choose one of them with :func:`gradatim.search.best_of_n`, :func:`gradatim.search.majority` or
    :func:`gradatim.search.weighted_majority`. The policy charges the prompt once and every generated token; the scorer
    charges what it reads.

    Args:
        tree: the problem's tree; its budget ends the sampling.
        policy: samples the solutions.
        scorer: scores them; without one, nothing is scored.
        n: how many solutions; ``None`` samples until the budget is spent.
        wave: how many solutions are sampled at a time. A budget that ends within a
            wave cuts off one of its solutions and leaves out those after it.
        score: score the last step of each solution, or every step (for path scores such as the minimum).
        sampling: how steps are sampled; the policy's own way by default.

    Raises:
        GradatimError: if neither ``n`` nor the budget sets an end.
    """
    if n is None and tree.budget.limit is None:
        raise GradatimError("sampling has no end: set the number of solutions (n) or a token budget")
    if wave < 1:
        raise GradatimError(f"sampling needs waves of at least one solution, got {wave}")
    done = 0
    while not tree.budget.spent and (n is None or done < n):
        count = wave if n is None else min(wave, n - done)
        leaves = await policy.rollout([tree.root], count, sampling)
        if not leaves:  # what is left of the budget does not pay for the prompt
            break
        if scorer is not None:
            await scorer.score(_to_score(leaves, score))
        done += count
    return tree


def _to_score(leaves: list[Node], score: Literal["solutions", "steps"]) -> list[Node]:
    finished = [leaf for leaf in leaves if leaf.finished]
    if score == "solutions":
        return list(dict.fromkeys(finished))
    return list(dict.fromkeys(node for leaf in finished for node in leaf.path()[1:]))
