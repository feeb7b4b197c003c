"""What some of a problem's independent samples cost, told from what all of them cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from gradatim.budget import POLICY
from gradatim.evaluation.compare import Cost, spending_of
from gradatim.tree import Tree


def scoring_of(tree: Tree) -> dict[str, Cost]:
    """What all accounts but the policy's were charged."""
    return {name: cost for name, cost in spending_of(tree.budget).items() if name != POLICY.name}


def subset_spending(
    tree: Tree,
    n: int,
    of: int,
    scoring: Mapping[str, Cost],
    policy: str = POLICY.name,
    sampling: Cost | None = None,
) -> dict[str, Cost]:
    """What ``n`` of a tree's ``of`` independent samples cost each account, exactly, as the mean over all subsets.

    Each sample was written on its own while the prompt was read once. A scorer reads each distinct step once, and
    only those of finished solutions (of a scorer with a tokenizer of its own, the steps' shares of what it read are
    those of their lengths here); so a step that ``m`` finished samples share is read with the probability that at
    least one of them is in the subset, ``1 - C(of - m, n) / C(of, n)``. All ``of`` together cost what was counted.

    Args:
        tree: sampled from the root, with every finished solution scored.
        n: how many samples.
        of: how many the tree has.
        scoring: what scoring all of them cost; empty where no score is needed.
        policy: the account of the policy that wrote them.
        sampling: what writing all of them cost it; by default all that its account was charged. A scorer that asks the
            policy itself is charged to that account, too.
    """
    wrote = spending_of(tree.budget).get(policy, Cost()) if sampling is None else sampling
    subset = {policy: replace(wrote, written=wrote.written * n / of)}
    share = _scored_share(tree, n, of) if scoring else 0.0
    for name, cost in scoring.items():
        before = subset.get(name, Cost())
        subset[name] = replace(
            cost, read=before.read + share * cost.read, written=before.written + share * cost.written
        )
    return subset


def _scored_share(tree: Tree, n: int, of: int) -> float:
    """The share of what a scorer read of ``of`` samples that it would have read, on average, of ``n`` of them."""
    lengths = _read_lengths(tree)
    finished = [0] * len(tree)
    for node in reversed(tree.nodes):
        if node.finished:
            finished[node.id] += node.multiplicity
        if node.parent is not None:
            finished[node.parent.id] += finished[node.id]
    read = [node.id for node in tree.nodes if finished[node.id]]
    drawn = sum(lengths[each] * (1.0 - math.comb(of - finished[each], n) / math.comb(of, n)) for each in read)
    return drawn / max(1, sum(lengths[each] for each in read))


def _read_lengths(tree: Tree) -> list[int]:
    """How long what is read of each step is, in tokens, or in bytes where a tree has no tokens."""
    if tree.root.step.tokens:
        return [len(node.step.tokens_with_observation if node.children else node.step.tokens) for node in tree.nodes]
    texts = (node.step.text_with_observation if node.children else node.step.text for node in tree.nodes)
    return [len(text.encode()) for text in texts]


def policy_tokens(tree: Tree) -> int:
    """The tokens that the policy read and wrote."""
    return tree.budget.read(POLICY.name) + tree.budget.written(POLICY.name)
