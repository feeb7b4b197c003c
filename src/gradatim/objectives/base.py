"""What an objective is: a pure function of the quantities of steps to a loss for each term."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from gradatim.engine.head_shape import HeadShape
from gradatim.errors import GradatimError
from gradatim.part import name_of
from gradatim.supervision.base import Construction
from gradatim.supervision.terms import Term

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.objectives.quantities import Quantities

Unit = Literal["terms", "tokens"]


@dataclass(frozen=True, eq=False)
class Loss:
    """What an objective says of every term; the trainer takes the means.

    Attributes:
        per_term (``N``): the loss of each term. What is minimized is ``sum(weight * per_term) / sum(sizes)``, with the
            sizes of :class:`~gradatim.objectives.quantities.TermIndex`, over everything that one update sees: so a
            batch in parts has the loss and gradient of the batch in one part, and advantages of both signs, given as
            weights, do not make the sum below vanish.
        metrics: by name, a number for each term, detached (``N``); their means by the sizes are logged.
    """

    per_term: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(ABC):
    """A loss over the steps of trees; a subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    Attributes:
        heads_only: whether only the heads learn, and the model below them stays as it is.
        groups: how many groups a term must have; ``None`` for any number.
        at_least: how many groups a term must have at least.
        needs_step_targets: whether every step of a term must say what it is aimed at.
        smooths_labels: whether it heeds how likely a pair is the wrong way round.
    """

    __slots__ = ()

    heads_only: ClassVar[bool] = False
    groups: ClassVar[int | None] = None
    at_least: ClassVar[int] = 1
    needs_step_targets: ClassVar[bool] = False
    smooths_labels: ClassVar[bool] = False

    @property
    def unit(self) -> Unit:
        """What the loss is a mean over: terms, or the tokens of their steps."""
        return "terms"

    @property
    def needs(self) -> frozenset[str]:
        """What beside heads is measured: ``"log_probabilities"``, ``"reference"``, ``"behaviour"``,
        ``"confidence"``, how sure the reference was."""
        return frozenset()

    @property
    def heads(self) -> Mapping[str, HeadShape]:
        """The heads that are read, by name; ``"score"`` is the head of a token classification model."""
        return {}

    @property
    def needs_targets(self) -> bool:
        """Whether every term must say what it is aimed at."""
        return False

    @abstractmethod
    def loss(self, quantities: Quantities) -> Loss:
        """The loss of every term."""

    def prepared(self, term: Term) -> Term:
        """The term as the loss reads it; the trainer asks once for each.

        Raises:
            GradatimError: if the objective cannot learn from it.
        """
        self._check(len(term.groups), bool(term.targets or any(group.targets for group in term.groups)))
        self._check_details(all(group.targets for group in term.groups), term.label_smoothing > 0)
        return term

    def check_adapters(self) -> None:
        """Check that low-rank adapters on the model would learn something.

        Raises:
            GradatimError: if only heads learn.
        """
        if self.heads_only:
            raise GradatimError(
                f"the objective {name_of(self)!r} trains a head on a model that stays as it is: leave lora out"
            )

    def check(self, construction: Construction) -> None:
        """Check, before there is a tree, that the objective can learn from what a construction gives.

        Raises:
            GradatimError: if it cannot.
        """
        self._check(construction.groups, construction.has_targets)
        self._check_details(construction.has_step_targets, construction.smooths_labels)

    def _check(self, groups: int | None, has_targets: bool) -> None:
        name = name_of(self)
        if self.groups is not None and groups != self.groups:
            raise GradatimError(
                f"the objective {name!r} learns from {shape_of(self.groups)}, not from {shape_of(groups)}; "
                "name another construction"
            )
        if groups is not None and groups < self.at_least:
            raise GradatimError(
                f"the objective {name!r} learns from pairs or rankings, not from {shape_of(groups)}; name another "
                "construction"
            )
        if self.needs_targets and not has_targets:
            raise GradatimError(
                f"the objective {name!r} needs targets, and what it is given has none; name a construction that gives "
                "labels or values"
            )

    def _check_details(self, has_step_targets: bool, smooths_labels: bool) -> None:
        name = name_of(self)
        if self.needs_step_targets and not has_step_targets:
            raise GradatimError(
                f"the objective {name!r} needs a target for every step, and what it is given has none; name a "
                "construction that gives them, such as solution_pairs with its option rated_by"
            )
        if smooths_labels and not self.smooths_labels:
            raise GradatimError(
                f"the objective {name!r} does not heed how likely a pair is the wrong way round; leave out the option "
                "of the construction that tells it, such as visits"
            )


def shape_of(groups: int | None) -> str:
    """What terms of so many groups are called; of any number for ``None``."""
    if groups is None:
        return "rankings"
    return {1: "single steps or solutions", 2: "pairs"}.get(groups, f"rankings of {groups}")
