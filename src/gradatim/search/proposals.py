"""One round of a search over a frontier: steps are drawn below its nodes, and what they end with is scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.aggregation import Aggregate
from gradatim.scorers.base import Scorer
from gradatim.tree import Node

Value = TypeVar("Value")


async def propose(
    frontier: Sequence[Node],
    n: int | Sequence[int],
    policy: Policy,
    scorer: Scorer,
    *,
    steps: int | None = 1,
    sampling: Sampling | None = None,
    aggregate: Aggregate = "last",
) -> list[Node]:
    """Draw below different open nodes, and have what the draws end with scored.

    Args:
        n: draws below each node, or below each its own number.
        steps: how many steps each draw writes at most; see :meth:`gradatim.policies.base.Policy.extend`.
        aggregate: how a path's score is made, which says what must be scored (:func:`judge`).

    Returns:
        The last step of each draw, in the order of nodes and draws, the same one as often as it was drawn.
    """
    drawn = await policy.extend(frontier, n, steps=steps, sampling=sampling)
    await judge(drawn, frontier, scorer, aggregate)
    return drawn


def by_start(frontier: Iterable[Node], ends: Iterable[Node]) -> dict[Node, list[Node]]:
    """The ends of draws by the nodes that they were drawn below, in the order of both.

    A node has fewer than were asked for where the budget ended, its path is as long as the policy reads, or a policy
    around the policy (:class:`gradatim.search.around.PolicyAround`) drew elsewhere.
    """
    below: dict[Node, list[Node]] = {node: [] for node in frontier}
    for end in ends:
        if start := next((node for node in reversed(end.path()) if node in below), None):
            below[start].append(end)
    return below


async def judge(ends: Iterable[Node], above: Iterable[Node], scorer: Scorer, aggregate: Aggregate) -> None:
    """Have the ends of draws scored, but for those that a limit cut off.

    Where a path's score is made of all its steps' scores, the steps between ``above``, from where was drawn, and the
    ends are scored too.
    """
    whole = [end for end in dict.fromkeys(ends) if not end.step.end.cuts_off]
    if aggregate != "last":
        known = {node for start in above for node in start.path()}
        whole = list(dict.fromkeys(node for end in whole for node in end.path() if node not in known))
    if whole:
        await scorer.score(whole)


async def judge_solutions(leaves: Iterable[Node], scorer: Scorer, aggregate: Aggregate) -> None:
    """Have solutions scored, and where a path's score is made of all its steps' scores, these as well."""
    finished = [leaf for leaf in leaves if leaf.finished]
    if finished:
        await judge(finished, [finished[0].tree.root], scorer, aggregate)


def in_round(value: Value | tuple[Value, ...], number: int) -> Value:
    """What a setting that may be given round by round is in a round, from 0; the last one holds for all that follow."""
    return value[min(number, len(value) - 1)] if isinstance(value, tuple) else value
