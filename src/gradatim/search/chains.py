"""Chains: several solutions side by side that do not compete, each going on from one of its own proposals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.aggregation import Aggregate
from gradatim.scorers.base import Scorer
from gradatim.search.decisions import decide
from gradatim.search.proposals import by_start, propose
from gradatim.tree import Node, Tree

Choice = Callable[[Sequence[Node], int, int], Node]
"""Which proposal a chain goes on from: of its proposals, as often as each was drawn, in a round, for a chain."""


async def run_chains(
    tree: Tree,
    policy: Policy,
    scorer: Scorer,
    choose: Choice,
    *,
    chains: int,
    branch: int,
    steps: int = 1,
    sampling: Sampling | None = None,
    aggregate: Aggregate = "last",
) -> None:
    """Let ``chains`` chains grow from the root, each by ``branch`` proposals of up to ``steps`` steps a round.

    A chain ends with a proposal that is closed, or where there is none but those that a limit cut off. Chains that
    chose the same step share its node and draw below it apart. What other proposals finished stays a candidate.
    """
    ends: dict[int, Node] = dict.fromkeys(range(chains), tree.root)
    number = 0
    while ends and not tree.budget.spent:
        at = {node: [chain for chain, end in ends.items() if end is node] for node in dict.fromkeys(ends.values())}
        drawn = await propose(
            list(at), [branch * len(there) for there in at.values()], policy, scorer,
            steps=steps, sampling=sampling, aggregate=aggregate,
        )  # fmt: skip
        decide([node for node in drawn if node.open], "pruned", "no chain chose it")
        chosen: dict[int, Node] = {}
        for node, found in by_start(at, drawn).items():
            proposals = [end for end in found if not end.step.end.cuts_off]
            for place, chain in enumerate(at[node]):
                if own := proposals[place :: len(at[node])] or proposals:  # where there are too few, they are shared
                    chosen[chain] = choose(own, number, chain)
        ends = {chain: node for chain, node in chosen.items() if node.open}
        for node, count in Counter(ends.values()).items():
            decide([node], "expanded", f"chosen by {count} of {chains} chains, by {scorer.name}")
        number += 1
