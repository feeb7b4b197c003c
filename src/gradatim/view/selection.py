"""Which nodes of a large tree to show."""

from __future__ import annotations

import heapq
import math

from gradatim.errors import GradatimError
from gradatim.suggestions import suggestion
from gradatim.tree import Node, Tree


def select_nodes(tree: Tree, limit: int, by: str | None = None) -> set[int]:
    """Ids of at most ``limit`` nodes that show best what the search did; a parent is always among them.

    The best solution (a right one, then the highest reward, then the highest score under ``by``) is shown whole if it
    fits. The rest goes to where the search spent most: from what is shown, always to the child with the most nodes
    below it, of equals the one that scores highest.

    Raises:
        GradatimError: if ``limit`` is below 1.
    """
    if limit < 1:
        raise GradatimError(f"a picture of a tree needs at least 1 node, not {limit}; raise the limit")
    sizes = subtree_sizes(tree)
    best = max(
        tree.leaves(),
        key=lambda leaf: (leaf.correct is True, leaf.reward or 0.0, leaf.finished, _score(leaf, by), -leaf.id),
    )
    shown = {node.id for node in best.path()[:limit]}
    waiting = [(-sizes[child.id], -_score(child, by), child.id) for id in shown for child in tree.nodes[id].children]
    heapq.heapify(waiting)
    while waiting and len(shown) < limit:
        _, _, id = heapq.heappop(waiting)
        if id not in shown:
            shown.add(id)
            for child in tree.nodes[id].children:
                heapq.heappush(waiting, (-sizes[child.id], -_score(child, by), child.id))
    return shown


def subtree_sizes(tree: Tree) -> list[int]:
    """For every node, the number of nodes at or below it."""
    sizes = [1] * len(tree)
    for node in reversed(tree.nodes):
        if node.parent is not None:
            sizes[node.parent.id] += sizes[node.id]
    return sizes


def hidden_below(tree: Tree, shown: set[int]) -> dict[int, int]:
    """For every shown node, how many nodes hang below it through children that are not shown."""
    sizes = subtree_sizes(tree)
    return {id: sum(sizes[child.id] for child in tree.nodes[id].children if child.id not in shown) for id in shown}


def default_score(tree: Tree) -> str | None:
    """The score name that most nodes have, of equals the first in the alphabet; ``None`` if no node has any."""
    counts: dict[str, int] = {}
    for node in tree.nodes:
        for name in node.scores:
            counts[name] = counts.get(name, 0) + 1
    return min(counts, key=lambda name: (-counts[name], name)) if counts else None


def check_score(tree: Tree, by: str | None) -> None:
    """Refuse the name of a score that no step of ``tree`` has; ``None`` names none.

    Raises:
        GradatimError: if so; names those that there are.
    """
    names = sorted({name for node in tree.nodes for name in node.scores})
    if by is not None and by not in names:
        raise GradatimError(
            f"no step of problem {tree.problem.id!r} has the score {by!r}; "
            f"{suggestion(by, names) if names else 'its steps have no scores at all, so leave by out'}",
            options=() if names else ("by",),
        )


def _score(node: Node, by: str | None) -> float:
    score = -math.inf if by is None else node.scores.get(by, -math.inf)
    return -math.inf if math.isnan(score) else score
