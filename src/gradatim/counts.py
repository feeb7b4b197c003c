"""What a pass over a tree counted, kept with the tree: first errors that were corrected, labels that disagreed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gradatim.tree import Tree

_COUNTS = "counts"  # the key in a tree's metadata


def note_counts(tree: Tree, name: str, counts: Mapping[str, int]) -> None:
    """Keep with a tree what the pass ``name`` counted, in words by the number; another pass over it writes it anew."""
    tree.metadata.setdefault(_COUNTS, {})[name] = dict(counts)


def total_counts(trees: Iterable[Tree]) -> dict[str, dict[str, int]]:
    """The sums over trees of what each pass counted, by the names of passes in the order in which they ran."""
    totals: dict[str, dict[str, int]] = {}
    for tree in trees:
        for name, counts in tree.metadata.get(_COUNTS, {}).items():
            total = totals.setdefault(name, {})
            for what, count in counts.items():
                total[what] = total.get(what, 0) + count
    return totals
