"""Supervised fine-tuning: likelihood of chosen steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from gradatim.training.examples import Example
from gradatim.training.objectives.base import Metrics, StepQuantities
from gradatim.tree import Node


def sft_loss(log_probabilities: Tensor, lengths: Tensor, weights: Tensor, normalizer: Tensor | None = None) -> Tensor:
    r"""Mean negative log-likelihood per token over chosen steps.

    .. math:: L = - \frac{\sum_i w_i \log \pi(s_i \mid \text{path})}{\sum_i w_i |s_i|}

    Args:
        log_probabilities: (I,) summed over the tokens of each step.
        lengths: (I,) tokens of each step.
        weights: (I,).
        normalizer: divides instead of the weighted token count.

    Returns:
        A scalar, in nats per token.
    """
    if normalizer is None:
        normalizer = (weights * lengths).sum()
    return -(weights * log_probabilities).sum() / normalizer


@dataclass(frozen=True, slots=True)
class SupervisedFineTuning:
    """Imitate chosen steps (see :func:`sft_loss`)."""

    reads: ClassVar[Literal["log_probabilities", "logits"]] = "log_probabilities"
    uses_reference: ClassVar[bool] = False

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

    def normalizer(self, weights: Tensor, lengths: Tensor) -> Tensor:
        return (weights * lengths[:, 0]).sum()

    def loss(self, steps: StepQuantities, normalizer: Tensor) -> tuple[Tensor, Metrics]:
        values, lengths = steps.values[:, 0], steps.lengths[:, 0]
        own = sft_loss(values.detach(), lengths, steps.weights)
        return sft_loss(values, lengths, steps.weights, normalizer), {"negative_log_likelihood": own}
