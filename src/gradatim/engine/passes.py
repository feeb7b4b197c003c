"""How work is divided into forward passes whose memory is bounded."""

from __future__ import annotations

from collections.abc import Iterable

from gradatim.tree import Node


def next_pass(nodes: Iterable[Node], tokens: int) -> int:
    """How many of ``nodes``, from the first, one forward pass takes: at least one.

    A pass holds each token of their paths once. A tree that no longer fits waits for the next pass as a whole, if it is
    not the only one.

    Args:
        nodes: what is to be read.
        tokens: at most so many; one path that is longer has a pass of its own.
    """
    present: set[Node] = set()
    count, total, tree_start = -1, 0, 0
    tree = None
    for count, node in enumerate(nodes):
        if node.tree is not tree:
            tree, tree_start = node.tree, count
        each: Node | None = node
        while each is not None and each not in present:
            present.add(each)
            total += len(each.step.tokens_with_observation)
            each = each.parent
        if count and total > tokens:
            return tree_start or count
    return count + 1
