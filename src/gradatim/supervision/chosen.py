"""What is learned of trees: what constructions give, as far as filters keep it, and a table of both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradatim.part import chosen_options, name_of
from gradatim.supervision.base import Construction
from gradatim.supervision.filters.base import Filter
from gradatim.supervision.terms import Term
from gradatim.supervision.verified import verified
from gradatim.tasks.base import Task
from gradatim.tree import Tree

WRONG = "not right as it was written"
"""Why a term of a construction is dropped."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What one construction gave, as far as it is right, or one filter kept.

    Attributes:
        part: its name and options.
        kept: the terms that it gave or kept.
        dropped: those that it dropped; of a construction, those that it wrote and the task does not call right.
        why: what is dropped; nothing of a construction whose terms were all kept.
    """

    part: str
    kept: int
    dropped: int = 0
    why: str = ""


def chosen_terms(
    trees: Iterable[Tree], constructions: Sequence[Construction], filters: Sequence[Filter], task: Task
) -> tuple[list[Term], list[Choice]]:
    """The terms that all constructions give of all trees, tree by tree, as far as all filters keep them, one after
    another; and what each gave and kept, the constructions first. What constructions write as solutions, the task must
    call right (:func:`gradatim.supervision.verified.verified`)."""
    terms: list[Term] = []
    given, wrong = [0] * len(constructions), [0] * len(constructions)
    for tree in trees:
        for place, construction in enumerate(constructions):
            found, refused = verified(construction(tree), construction, tree, task)
            given[place] += len(found)
            wrong[place] += refused
            terms += found
    table = [
        Choice(_named(part), kept, dropped, WRONG if dropped else "")
        for part, kept, dropped in zip(constructions, given, wrong, strict=True)
    ]
    for part in filters:
        kept = part(terms)
        table.append(Choice(_named(part), len(kept), len(terms) - len(kept), part.drops))
        terms = kept
    return terms, table


def _named(part: object) -> str:
    chosen = ", ".join(f"{name} {value}" for name, value in chosen_options(part).items())
    return f"{name_of(part)} ({chosen})" if chosen else name_of(part)
