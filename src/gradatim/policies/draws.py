"""How many different continuations a request for several draws needs: one rule for every policy."""

from __future__ import annotations

from gradatim.policies.base import Sampling
from gradatim.tree import Node


def distinct_draws(node: Node, n: int, sampling: Sampling) -> list[list[int]]:
    """Number ``n`` draws below ``node``; returns their sampling keys, those of draws that are alike together.

    At temperature 0 the draws of a node are all alike: one continuation is written and charged, and stands for all.
    """
    keys = [node.tree.draw(node) for _ in range(n)]
    return [keys] if sampling.temperature == 0 else [[key] for key in keys]
