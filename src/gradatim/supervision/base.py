"""What a construction is: what a tree teaches, as terms of a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from gradatim.supervision.terms import Term
from gradatim.tree import Tree


class Construction(ABC):
    """A pure function from a tree to terms; a subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    Attributes:
        what: what its terms are called, in the plural.
        groups: how many groups each term has: 1 for steps and solutions, 2 for pairs; ``None`` for rankings of any
            number.
        has_targets: whether its terms say what each group is aimed at.
        signed: whether these targets are advantages, of either sign and any size, and not between 0 and 1.
        asks: what a tree must have for it, in words, where a run that found nothing should say so.
    """

    __slots__ = ()

    what: ClassVar[str]
    groups: ClassVar[int | None]
    has_targets: ClassVar[bool]
    signed: ClassVar[bool] = False
    asks: ClassVar[str] = ""

    @property
    def has_step_targets(self) -> bool:
        """Whether its groups say what each of their steps is aimed at."""
        return False

    @property
    def smooths_labels(self) -> bool:
        """Whether its pairs say how likely they are the wrong way round."""
        return False

    @property
    def keeps_steps_right(self) -> bool:
        """Whether, of the solutions that it writes, only those are meant whose every step is right, as far as the task
        knows; else those that the task calls right."""
        return False

    @abstractmethod
    def __call__(self, tree: Tree) -> Iterable[Term]:
        """The terms that ``tree`` gives, in a fixed order."""

    @staticmethod
    @abstractmethod
    def rows(terms: Iterable[Term], /) -> list[Any]:
        """Its terms as rows of a standard format (:mod:`gradatim.supervision.rows`), one for each."""
