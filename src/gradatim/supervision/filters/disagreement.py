"""A filter by whether two scores of a step say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from gradatim.part import part
from gradatim.supervision.filters.base import Filter
from gradatim.supervision.terms import Term
from gradatim.tree import Node


@part
class Disagreement(Filter):
    """Keep what two scores agree on: at the last step of every side they differ by at most so much.

    A step that lacks one of the scores is not agreed on.
    """

    scores: tuple[str, str]
    """The names of the two scores."""
    most: Annotated[float, Field(ge=0)] = 0.2
    """By how much they may differ."""

    @property
    def drops(self) -> str:
        first, second = self.scores
        return f"{first} and {second} differ by more than {self.most:g}, or one is missing"

    @property
    def reads(self) -> tuple[str, ...]:
        return self.scores

    def __call__(self, terms: Sequence[Term]) -> list[Term]:
        return [term for term in terms if all(map(self._agreed, term.ends))]

    def _agreed(self, node: Node) -> bool:
        first, second = (node.scores.get(name) for name in self.scores)
        return first is not None and second is not None and abs(first - second) <= self.most
