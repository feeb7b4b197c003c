"""What is learned of trees: what constructions give, as far as filters keep it, and a table of both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradatim.part import chosen_options, name_of
from gradatim.supervision.base import Construction
from gradatim.supervision.filters.base import Filter
from gradatim.supervision.terms import Term
from gradatim.tree import Tree


@dataclass(frozen=True, slots=True)
class Choice:
    """What one construction gave, or one filter kept.

    Attributes:
        part: its name and options.
        kept: the terms that it gave or kept.
        dropped: those that it dropped.
        why: of a filter, what it drops.
    """

    part: str
    kept: int
    dropped: int = 0
    why: str = ""


def chosen_terms(
    trees: Iterable[Tree], constructions: Sequence[Construction], filters: Sequence[Filter]
) -> tuple[list[Term], list[Choice]]:
    """The terms that all constructions give of all trees, tree by tree, as far as all filters keep them, one after
    another; and what each gave and kept, the constructions first."""
    terms: list[Term] = []
    given = [0] * len(constructions)
    for tree in trees:
        for place, construction in enumerate(constructions):
            found = list(construction(tree))
            given[place] += len(found)
            terms += found
    table = [Choice(_named(part), count) for part, count in zip(constructions, given, strict=True)]
    for part in filters:
        kept = part(terms)
        table.append(Choice(_named(part), len(kept), len(terms) - len(kept), part.drops))
        terms = kept
    return terms, table


def _named(part: object) -> str:
    chosen = ", ".join(f"{name} {value}" for name, value in chosen_options(part).items())
    return f"{name_of(part)} ({chosen})" if chosen else name_of(part)
