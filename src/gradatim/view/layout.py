"""Where the nodes of a picture go: a tidy tree layout (Reingold and Tilford, 1981)."""

from __future__ import annotations

from collections.abc import Sequence


def tidy_layout(parents: Sequence[int | None]) -> list[float]:
    """Place nodes along the axis across the tree, as close together as they fit.

    Neighbours at one depth are at least 1 apart, a parent stands midway between its first and last child, equal
    subtrees are drawn alike, and edges do not cross.

    Args:
        parents: ``[nodes]``, the index of each node's parent (smaller than its own); ``None`` for the root, which is
            the first. Children keep their order.

    Returns:
        ``[nodes]``, each node's place; the smallest is 0.
    """
    children: list[list[int]] = [[] for _ in parents]
    for index, parent in enumerate(parents):
        if parent is not None:
            children[parent].append(index)
    shift = [0.0] * len(parents)  # of each node relative to its parent
    # lowest and highest place at each depth below a node, relative to it, the deepest first
    outlines: list[list[tuple[float, float]]] = [[] for _ in parents]
    for index in reversed(range(len(parents))):
        outlines[index] = _place_children(children[index], outlines, shift)
    places = [0.0] * len(parents)
    for index, parent in enumerate(parents):
        if parent is not None:
            places[index] = places[parent] + shift[index]
    lowest = min(places)
    return [place - lowest for place in places]


def _place_children(
    children: Sequence[int], outlines: list[list[tuple[float, float]]], shift: list[float]
) -> list[tuple[float, float]]:
    """Shift each child just clear of those before it, centre them, and return their common outline."""
    merged: list[tuple[float, float]] = []
    offsets: list[float] = []
    for child in children:
        outline = outlines[child]
        shared = zip(reversed(merged), reversed(outline), strict=False)
        offset = max((high - low + 1.0 for (_, high), (low, _) in shared), default=0.0)
        offsets.append(offset)
        merged = _merge(merged, outline, offset)
        outlines[child] = []
    middle = (offsets[0] + offsets[-1]) / 2 if offsets else 0.0
    for child, offset in zip(children, offsets, strict=True):
        shift[child] = offset - middle
    return [*((low - middle, high - middle) for low, high in merged), (0.0, 0.0)]


def _merge(
    first: list[tuple[float, float]], second: list[tuple[float, float]], offset: float
) -> list[tuple[float, float]]:
    moved = [(low + offset, high + offset) for low, high in second]
    deep = max(len(first), len(moved))
    result = []
    for level in range(deep, 0, -1):  # the deepest first: index -level counts from the shallow end
        spans = [outline[-level] for outline in (first, moved) if len(outline) >= level]
        result.append((min(low for low, _ in spans), max(high for _, high in spans)))
    return result
