"""Why a search went on from a node, or did not: written on the node, so that a tree can be read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from gradatim.tree import Node

DECISION = "search"
"""The key of the decision in a node's notes."""
SIMULATED = "simulated"
"""The key of a note on steps that only a simulated future went through."""
Decision = Literal["expanded", "pruned", "dropped"]
"""``expanded``: steps were asked for below it. ``pruned``: others were more promising. ``dropped``: nothing more was
to be had of it, whatever its score is."""


def decide(nodes: Iterable[Node], decision: Decision, why: str) -> None:
    """Write on nodes what the search decided of them and why, in a few words; a later decision takes its place."""
    for node in nodes:
        node.notes[DECISION] = {"decision": decision, "why": why}


def keep_and_prune(candidates: Iterable[Node], kept: Iterable[Node], by: str) -> None:
    """Write of each candidate whether it is among those that are kept, in their order, and by what."""
    places = {node: place for place, node in enumerate(kept, 1)}
    candidates = list(candidates)
    for node in candidates:
        if node in places:
            decide([node], "expanded", f"number {places[node]} of {len(candidates)} by {by}")
        else:
            decide([node], "pruned", f"not among the best {len(places)} of {len(candidates)} by {by}")
