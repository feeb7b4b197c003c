"""What constructions that compare share: ordering steps by their values, and using the sides of pairs evenly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, TypeVar

from pydantic import Field, PositiveInt

from gradatim.part import options
from gradatim.supervision.terms import Group, Term, margin
from gradatim.supervision.values import SureStepValues
from gradatim.tree import Node

Item = TypeVar("Item")


@options
class PairsOfSteps(SureStepValues):
    """Which of the pairs of one step's children are kept."""

    min_gap: Annotated[float, Field(ge=0)] = 0.0
    """By how much the values of a pair differ at least."""
    max_per_parent: PositiveInt | None = None
    """Pairs of one step's children at most, those of the widest gap; `null` for all."""
    visits: str | None = None
    """The search whose visits say how sure a pair is, such as `mcts`: with N visits of each, it is taken to be the
    wrong way round with probability N(rejected) / (N(chosen) + N(rejected)), one half at most (MCTS-DPO's label
    smoothing). `null` for no smoothing."""

    @property
    def smooths_labels(self) -> bool:
        return self.visits is not None

    def widest(self, pairs: Iterable[Term]) -> list[Term]:
        """Of the pairs below one parent, those that differ by enough, widest gap first."""
        kept = [term for term in pairs if self._is_kept(*term.ends)]
        return [self._smoothed(term) for term in sorted(kept, key=lambda term: -margin(term))[: self.max_per_parent]]

    def _is_kept(self, chosen: Node, rejected: Node) -> bool:
        return self.are_apart(chosen, rejected, self.min_gap)

    def _smoothed(self, term: Term) -> Term:
        if self.visits is None:
            return term
        chosen, rejected = (end.counts.get(self.visits, 0) for end in term.ends)
        return replace(term, label_smoothing=min(0.5, rejected / (chosen + rejected)) if chosen + rejected else 0.5)


def pair_of_solutions(right: Node, wrong: Node, rated_by: str | None = None) -> Term:
    """A right solution against a wrong one, both from the prompt on, with their rewards.

    Args:
        right, wrong: their ends.
        rated_by: a score that every step has, which is what the step is aimed at; ``None`` for nothing.
    """
    groups = []
    for leaf in (right, wrong):
        path = tuple(leaf.path()[1:])
        groups.append(Group(path, targets=() if rated_by is None else tuple(step.scores[rated_by] for step in path)))
    return Term(tuple(groups), targets=(right.reward or 0.0, wrong.reward or 0.0))


def round_robin(first: Sequence[Item], second: Sequence[Item]) -> Iterator[tuple[Item, Item]]:
    """Every combination once, in an order that uses the elements of each side evenly."""
    if first and second:
        cycle = math.lcm(len(first), len(second))  # after so many pairs the same ones would return: shift by one
        for turn in range(len(first) * len(second)):
            yield first[turn % len(first)], second[(turn + turn // cycle) % len(second)]


def spread_over(ranked: Sequence[Item], count: int | None) -> list[Item]:
    """At most ``count`` of the elements, at least two, evenly spread from the first to the last; ``None`` for all."""
    if count is None or len(ranked) <= count:
        return list(ranked)
    return [ranked[place * (len(ranked) - 1) // (count - 1)] for place in range(count)]
