"""What is drawn below which node: one rule for every policy."""

from __future__ import annotations

from collections.abc import Sequence

from gradatim.policies.base import Sampling
from gradatim.tree import EndReason, Node


def draws_below(nodes: Sequence[Node], n: int | Sequence[int], steps: int | None) -> list[tuple[Node, int]]:
    """The open nodes that are to be continued, and how often each; see :meth:`gradatim.policies.base.Policy.extend`.

    Raises:
        ValueError: if a number of draws or steps makes no sense, or there are not as many numbers as nodes.
    """
    counts = [n] * len(nodes) if isinstance(n, int) else n
    if len(counts) != len(nodes):
        raise ValueError(f"{len(counts)} numbers of draws for {len(nodes)} nodes; give one for each, or one for all")
    if (isinstance(n, int) and n < 0) or any(count < 0 for count in counts):
        raise ValueError(f"n must be at least 0, got {n}")
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1, or None for whole solutions, got {steps}")
    return [(node, count) for node, count in zip(nodes, counts, strict=True) if node.open and count]


def distinct_draws(node: Node, n: int, sampling: Sampling) -> list[list[int]]:
    """Number ``n`` draws below ``node``; returns their sampling keys, those of draws that are alike together.

    At temperature 0 the draws of a node are all alike: one continuation is written and charged, and stands for all.
    """
    keys = [node.tree.draw(node) for _ in range(n)]
    return [keys] if sampling.temperature == 0 else [[key] for key in keys]


def steps_to_write(node: Node, steps: int | None, sampling: Sampling) -> tuple[int, EndReason]:
    """How many steps a draw below ``node`` writes at most, and why the last of them ends, if it ends at a boundary."""
    most = max(1, sampling.max_steps - node.depth)
    return (most, EndReason.STEPS) if steps is None or steps >= most else (steps, EndReason.BOUNDARY)
