"""What tasks share that generate their problems without end, each with a right solution."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from typing import TYPE_CHECKING, Any

from gradatim.errors import GradatimError
from gradatim.part import options
from gradatim.tasks.base import Task
from gradatim.tree import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@options
class GeneratedTask(Task):
    """A task whose problems are drawn; a policy can be trained from scratch on its own demonstrations."""

    seed: int = 0
    """Which stream of problems is generated; the split of a problem does not depend on it."""

    @property
    def difficulty(self) -> dict[str, Any]:
        """What problems it generates, whatever the seed: all other options."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "seed"}

    @abstractmethod
    def demonstrations(self, split: str) -> Iterator[tuple[Problem, str]]:
        """An endless stream of different problems of ``split``, each with one right solution.

        Raises:
            GradatimError: for an unknown split, or when no new problem turns up any more.
        """

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of a policy that is trained from scratch on the task; the same task gives the same one."""

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``split``, the same ones whatever ``count`` is.

        Raises:
            GradatimError: for an unknown split, no count, or more problems than the difficulty has.
        """
        if count is None:
            raise GradatimError(f"{self.name} generates problems without end: say how many (count)")
        if count < 1:
            raise GradatimError(f"ask for at least one problem of {self.name}, got {count}")
        return [problem for problem, _ in islice(self.demonstrations(split), count)]
