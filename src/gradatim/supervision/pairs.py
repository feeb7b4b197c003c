"""Preference pairs: of two steps or solutions of a tree, which is better."""

from __future__ import annotations

from dataclasses import dataclass

from gradatim.tree import Node


@dataclass(frozen=True, slots=True)
class StepPair:
    """Two nodes of one tree of which one is preferred.

    Attributes:
        chosen: the better one.
        rejected: the worse one.
        weight: how much the pair counts in a loss.
        margin: by how much the better one is better, in units of the value they were compared by.
    """

    chosen: Node
    rejected: Node
    weight: float = 1.0
    margin: float = 0.0
