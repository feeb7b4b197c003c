"""Supervised fine-tuning: likelihood of chosen steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from gradatim.objectives.base import Loss, Quantities
from gradatim.supervision.terms import Example
from gradatim.tree import Node


def sft_loss(log_probabilities: Tensor) -> Tensor:
    r"""Negative log-likelihood of chosen steps, of which the mean over their tokens is minimized.

    .. math:: L = \frac{\sum_i w_i L_i}{\sum_i w_i |s_i|}, \qquad L_i = -\log \pi(s_i \mid \text{path})

    Args:
        log_probabilities: (N,) summed over the tokens of each step.

    Returns:
        (N,) one loss for each step, in nats.
    """
    return -log_probabilities


@dataclass(frozen=True, slots=True)
class SupervisedFineTuning:
    """Imitate chosen steps (see :func:`sft_loss`)."""

    reads: ClassVar[Literal["log_probabilities", "logits"]] = "log_probabilities"
    uses_reference: ClassVar[bool] = False
    unit: ClassVar[Literal["terms", "tokens"]] = "tokens"

    def examples(self, nodes: Iterable[Node], *, whole_paths: bool = True) -> list[Example]:
        """One example per distinct step.

        Args:
            nodes: the ends of the solutions to imitate, or single steps.
            whole_paths: learn every step on the path to each node; a step on several paths counts as often as it
                would in separate texts. Otherwise learn the given steps alone.
        """
        counts: Counter[int] = Counter()
        by_id: dict[int, Node] = {}
        for end in nodes:
            for node in end.path()[1:] if whole_paths else (end,):
                counts[id(node)] += 1
                by_id[id(node)] = node
        return [Example(((by_id[key],),), weight=float(count)) for key, count in counts.items()]

    def loss(self, quantities: Quantities) -> Loss:
        losses = sft_loss(quantities.singles(quantities.values))
        per_token = losses.detach() / quantities.singles(quantities.lengths).clamp(min=1)
        return Loss(losses, {"negative_log_likelihood": per_token})
