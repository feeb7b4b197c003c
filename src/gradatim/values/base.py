"""What a pass over values is: it writes what every step of a searched and graded tree is worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from gradatim.part import options, parts_within
from gradatim.scorers.base import Context
from gradatim.tree import Tree

VALUE = "value"
"""The name under which trees keep what a step is worth, where nothing else is said."""


@options
class Values(ABC):
    """One way to tell what steps are worth; a subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    Attributes:
        samples: whether models are run for it, so that trees that were stored by somebody else cannot be valued so.
    """

    samples: ClassVar[bool] = False

    key: str = VALUE
    """The name of the values in trees."""

    @property
    def written(self) -> set[str]:
        """The names of all that it writes to trees."""
        return {self.key}

    @property
    def runs_models(self) -> bool:
        """Whether it samples, or values that it is made of do."""
        return any(each.samples for each in parts_within(self) if isinstance(each, Values))

    @abstractmethod
    async def __call__(self, tree: Tree, context: Context) -> None:
        """Write ``node.scores[key]`` to every step that has a value, and to ``node.counts[key]`` the solutions behind.

        Args:
            tree: a tree that was searched and graded.
            context: the task, and the models that the recipe names.
        """
