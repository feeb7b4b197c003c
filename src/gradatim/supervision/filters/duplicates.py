"""A filter of what is there twice, be it in different trees."""

from __future__ import annotations

from collections.abc import Sequence

from gradatim.part import part
from gradatim.supervision.filters.base import Filter
from gradatim.supervision.terms import Group, Term


@part
class Duplicates(Filter):
    """Keep one of those terms that read the same: the same prompt and the same steps on every side, weighed alike.

    The first is kept, whatever the others are aimed at.
    """

    @property
    def drops(self) -> str:
        return "reads as another one before it"

    def __call__(self, terms: Sequence[Term]) -> list[Term]:
        first: dict[object, Term] = {}
        for term in terms:
            first.setdefault(tuple(map(_read, term.groups)), term)
        return list(first.values())


def _read(group: Group) -> tuple[str, str, tuple[float, ...]]:
    """What is read of a group: the text before it, its own, and what its steps weigh."""
    before = group.nodes[0].parent
    assert before is not None, "a group begins below the prompt"
    text = before.text
    return before.tree.problem.prompt + text, group.nodes[-1].text[len(text) :], group.weights
