"""What objectives that judge steps share: a head's loss at every step that is aimed at something."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from gradatim.errors import GradatimError
from gradatim.objectives.base import Loss, Objective
from gradatim.part import name_of
from gradatim.supervision.base import Construction
from gradatim.supervision.terms import Term, from_prompt

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.objectives.quantities import Quantities

Kind = Literal["cross_entropy", "squared"]


def judgement_loss(logits: Tensor, targets: Tensor, kind: Kind = "cross_entropy") -> Tensor:
    r"""The loss of a judgement, of which the sigmoid is a probability or a value between 0 and 1.

    .. math:: L_i = -y_i \log \sigma(z_i) - (1 - y_i) \log \sigma(-z_i) \quad\text{or}\quad (\sigma(z_i) - y_i)^2

    Cross-entropy of hard labels is that of Lightman et al., "Let's Verify Step by Step" (2023); of soft ones, the
    share of rollouts that succeed from the step on, that of Wang et al., "Math-Shepherd" (2023).

    Args:
        logits: (N,) of a head.
        targets: (N,) between 0 and 1.
        kind: which of the two.

    Returns:
        (N,) one loss for each, in nats or squared.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    if kind == "squared":
        return (logits.sigmoid() - targets).square()
    return binary_cross_entropy_with_logits(logits, targets, reduction="none")


def step_targets(quantities: Quantities) -> Tensor:
    """What each membership of a step in a group is aimed at, (M,), NaN where nothing is said: its own target, else that
    of the group for the group's last step."""
    own, last = quantities.step_target, quantities.last()
    at_end = own.new_full(own.shape, float("nan")).index_put((last,), quantities.target.to(own.dtype))
    return own.where(~own.isnan(), at_end)


def aimed(quantities: Quantities) -> Tensor:
    """Whether any step of each term is aimed at something, (N,)."""
    known = (~step_targets(quantities).isnan()).to(quantities.weight.dtype)
    return quantities.by_term(known) > 0


def judged(quantities: Quantities, head: str, kind: Kind) -> Loss:
    """The loss of a head at the steps of each term that are aimed at something: their mean, by the steps' weights."""
    logits, targets = quantities.heads[head][quantities.step_of], step_targets(quantities)
    known = ~targets.isnan()
    targets = targets.nan_to_num()
    weights = quantities.step_weight * known

    def mean(of: Tensor) -> Tensor:
        return quantities.by_term(of * weights) / quantities.by_term(weights.abs().to(of.dtype)).clamp(min=1e-12)

    values = logits.detach().sigmoid()
    metrics = {
        "accuracy": mean(((values > 0.5) == (targets > 0.5)).to(values.dtype)),
        "mean_score": mean(values),
        "mean_label": mean(targets),
    }
    return Loss(mean(judgement_loss(logits, targets, kind)), metrics)


class Judgement(Objective):
    """An objective that learns from targets between 0 and 1: labels, values, outcomes."""

    __slots__ = ()

    @property
    def needs_targets(self) -> bool:
        return True

    def check(self, construction: Construction) -> None:
        super().check(construction)
        if construction.signed:
            raise GradatimError(
                f"the objective {name_of(self)!r} learns from labels and values between 0 and 1, and "
                f"{name_of(construction)!r} gives {construction.what}; name another construction"
            )

    def prepared(self, term: Term) -> Term:
        term = super().prepared(term)
        check_targets(term)
        return term


class SolutionJudgement(Judgement):
    """One that reads whole solutions, from the prompt on, and learns what each is aimed at as a whole."""

    __slots__ = ()

    groups: ClassVar[int | None] = 1

    def prepared(self, term: Term) -> Term:
        term = super().prepared(term)
        if not term.targets:
            raise GradatimError(
                f"the objective {name_of(self)!r} learns from the outcomes of whole solutions, and a term names none; "
                "take the construction solution_labels"
            )
        return from_prompt(term)


def check_targets(term: Term) -> None:
    """Check what a term says that its steps are worth.

    Raises:
        GradatimError: if something is not between 0 and 1.
    """
    for target in (*term.targets, *(target for group in term.groups for target in group.targets)):
        if not (0 <= target <= 1 or target != target):
            raise GradatimError(f"a step label must be between 0 and 1, got {target}; rescale the scores")
