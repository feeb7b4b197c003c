"""What a scorer is: whatever judges a step."""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, runtime_checkable

from gradatim.errors import GradatimError
from gradatim.part import NamesModel, name_of, options, parts_within
from gradatim.policies.base import Policy
from gradatim.tree import Node, Tree

if TYPE_CHECKING:
    from gradatim.engine.reader import Reader
    from gradatim.scorers.process_reward import ProcessRewardScorer
    from gradatim.tasks.base import Task

ModelName = Annotated[str, NamesModel()]
"""An option that names one of a recipe's models."""


@runtime_checkable
class Scorer(Protocol):
    """Writes one number per node under its own name.

    Attributes:
        name: the key in ``node.scores``.
    """

    name: str

    async def score(self, nodes: Sequence[Node]) -> None:
        """Write ``node.scores[self.name]`` for every node that has none yet.

        Tokens are charged to the budget of the node's tree first; a node that the budget cannot pay for stays
        unscored, as does one that is longer than a model reads. A score that is not a finite number is an error.
        """
        ...

    def release(self, tree: Tree) -> None:
        """Forget what is kept of a tree that is done."""
        ...


class StepScorer(ABC):
    """A scorer that says what each of some nodes is worth; what all such scorers share is here.

    Args:
        name: the key in ``node.scores``.

    Attributes:
        missing: how many nodes it was asked for and has no score of, each counted once: the budget could not pay, they
            are longer than a model reads, or a judge's answer could not be read. One that is scored when it is asked
            for again is not missing any more.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.missing = 0
        self._missing: weakref.WeakKeyDictionary[Tree, set[int]] = weakref.WeakKeyDictionary()  # by the nodes' ids

    @abstractmethod
    async def judged(self, nodes: Sequence[Node]) -> Sequence[float | None]:
        """What each of different nodes without a score is worth; ``None`` where that cannot be said."""

    async def score(self, nodes: Sequence[Node]) -> None:
        """Write ``node.scores[name]`` for every node that has none yet; see :class:`Scorer`.

        Raises:
            GradatimError: if a score is not a finite number.
        """
        asked = [node for node in dict.fromkeys(nodes) if self.name not in node.scores]
        if not asked:
            return
        for node, score in zip(asked, await self.judged(asked), strict=True):
            self._count(node, score is None)
            if score is None:
                continue
            if math.isfinite(score):
                node.scores[self.name] = score
            else:
                raise GradatimError(
                    f"the scorer {self.name!r} gave a score that is not a number; its model has diverged, or its "
                    "number format is too narrow: try dtype='float32'",
                    options=("dtype='float32'",),
                )

    def _count(self, node: Node, is_missing: bool) -> None:
        known = self._missing.setdefault(node.tree, set())
        if is_missing != (node.id in known):
            self.missing += 1 if is_missing else -1
            (known.add if is_missing else known.discard)(node.id)

    def release(self, tree: Tree) -> None:  # noqa: B027 - most have nothing to forget
        """Forget what is kept of a tree that is done."""


class Context(Protocol):
    """What a scorer or a pass over values is given beside its options: the task, and models by their names."""

    @property
    def task(self) -> Task:
        """Verifies solutions."""
        ...

    def policy(self, name: str = "policy") -> Policy:
        """The policy that runs a model."""
        ...

    def reader(self, name: str) -> Reader:
        """What reads steps with a model: log-probabilities, hidden states and heads; one copy with its policy."""
        ...

    def reward_model(self, name: str, key: str, layout: str = "auto") -> ProcessRewardScorer:
        """The process reward model of a name, as a scorer that writes its scores under ``key``."""
        ...


@options
class ScorerPart(ABC):
    """A scorer's options; a subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    Options that name one of the recipe's models are of the type :data:`ModelName`.

    Attributes:
        verifies: whether it itself knows the truth about solutions, so that no evaluation may choose by it, nor by
            what holds it (``knows_truth``).
    """

    verifies: ClassVar[bool] = False

    key: str | None = None
    """The name of its scores in trees; by default its own."""

    @property
    def name(self) -> str:
        """The name of its scores in trees."""
        return self.key or name_of(self)

    @property
    def within(self) -> tuple[ScorerPart, ...]:
        """The scorers that its options hold, and those that these hold."""
        return tuple(each for each in parts_within(self) if isinstance(each, ScorerPart) and each is not self)

    @property
    def knows_truth(self) -> bool:
        """Whether it or a scorer within it verifies."""
        return self.verifies or any(each.verifies for each in self.within)

    @abstractmethod
    def open(self, context: Context) -> Scorer:
        """The scorer at work.

        Raises:
            GradatimError: if a model cannot be loaded or used.
        """
