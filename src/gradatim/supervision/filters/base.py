"""What a filter is: it chooses among all terms that a training would learn from."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence

from gradatim.part import options
from gradatim.supervision.terms import Term


@options
class Filter(ABC):
    """A choice among terms; a subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    It sees the terms of all constructions and trees together, so that it can balance them and find what is there twice.
    """

    @property
    @abstractmethod
    def drops(self) -> str:
        """What it drops, in a few words, such as "steps behind the fourth": why a term is missing."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The scores of steps that it reads."""
        return ()

    @abstractmethod
    def __call__(self, terms: Sequence[Term]) -> list[Term]:
        """Those of the terms that are kept, in their order."""


def depth_of(term: Term) -> int:
    """At which step of its solution a term begins to say something, counted from 1: of a pair or ranking, the first
    step in which its sides differ."""
    shared = set.intersection(*({id(node) for node in group.nodes} for group in term.groups))
    first = term.groups[0].nodes
    own = first if len(term.groups) == 1 else [node for node in first if id(node) not in shared] or first
    return own[0].depth


def at_most(terms: Sequence[Term], count: int, by: Callable[[Term], Hashable], seed: int) -> list[Term]:
    """At most so many terms of each kind, chosen by chance, in their order."""
    places: dict[Hashable, list[int]] = {}
    for place, term in enumerate(terms):
        places.setdefault(by(term), []).append(place)
    generator = random.Random(seed)
    kept = {place for each in places.values() for place in generator.sample(each, min(count, len(each)))}
    return [term for place, term in enumerate(terms) if place in kept]
