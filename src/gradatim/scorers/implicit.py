"""Process rewards that a policy and its reference hold already: how much likelier one finds a step than the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveFloat

from gradatim.engine.reader import Reader
from gradatim.engine.reading import Reading
from gradatim.part import part
from gradatim.policies.base import Policy
from gradatim.scorers.base import Context, ModelName, ScorerPart, StepScorer
from gradatim.scorers.path_values import PathValues
from gradatim.tree import Node, Tree

Form = Literal["increment", "accumulated"]


@part
class ImplicitPart(ScorerPart):
    r"""Implicit process rewards, a model's log-ratio to its reference (Free Process Rewards, 2024, arXiv:2412.01981).

    The reward of a step is :math:`\beta \sum_t \log (\pi(y_t) / \pi_{\text{ref}}(y_t))` over its tokens, in units of
    :math:`\beta` nats, of either sign. If the model was trained on outcomes with such a log-ratio as the reward (by
    DPO, for instance), the sum from the prompt on is the exponential average of the outcome that it expects: a Q-value,
    of which the reward of a step is the increment. The objective `implicit_reward` trains such a model.
    Log-probabilities that either model recorded when it wrote the step are not read again; of a model on a server, or
    in another program, there are no others.
    """

    model: ModelName = "policy"
    """The model that was trained, as a policy or as an outcome reward model of this form."""
    reference: ModelName = "reference"
    """What it was trained against."""
    beta: PositiveFloat = 0.05
    """The weight of the log-ratio, as in training."""
    form: Form = "increment"
    """The reward of the step alone, or `accumulated` from the prompt on: the Q-value."""

    def open(self, context: Context) -> ImplicitScorer:
        model, reference = (_likelihoods(context, name) for name in (self.model, self.reference))
        return ImplicitScorer(model, reference, self.name, beta=self.beta, form=self.form)


class Recorded:
    """What a policy that runs elsewhere recorded of the steps that it wrote, in the place of a reader.

    Args:
        policy: the policy, by whose name its steps are found.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def read(self, nodes: Sequence[Node], *, log_probabilities: bool = True) -> list[Reading | None]:
        """The recorded log-probabilities; ``None`` where another policy wrote the step, or nobody recorded them."""
        steps = [node.step for node in nodes]
        known = [step.source == self._policy.source and bool(step.log_probabilities) for step in steps]
        return [Reading(step.log_probabilities) if each else None for step, each in zip(steps, known, strict=True)]

    def release(self, tree: Tree) -> None:
        """Nothing is kept."""


def _likelihoods(context: Context, name: str) -> Reader | Recorded:
    policy = context.policy(name)
    return context.reader(name) if hasattr(policy, "reader") else Recorded(policy)


class ImplicitScorer(StepScorer):
    """Scores a step by beta times the log-ratio of two models on its tokens; see :class:`ImplicitPart`.

    Each model reads the step in its own tokens. A prompt has no score but 0 where rewards are accumulated.

    Args:
        model, reference: read the two models, or have what they recorded.
        name: the key in ``node.scores``.
        beta, form: as in :class:`ImplicitPart`.
    """

    def __init__(
        self,
        model: Reader | Recorded,
        reference: Reader | Recorded,
        name: str = "implicit",
        *,
        beta: float = 0.05,
        form: Form = "increment",
    ) -> None:
        super().__init__(name)
        self._readers = model, reference
        self._beta, self._form = beta, form
        self._log_ratios = PathValues(self._read)

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        if self._form == "accumulated":
            paths = await self._log_ratios.along(nodes)
        else:
            own = await self._log_ratios.of(nodes)
            paths = [None if value is None else [value] for value in own]
        return [None if path is None else self._beta * math.fsum(path) for path in paths]

    async def _read(self, nodes: Sequence[Node]) -> list[float | None]:
        """The log-ratio of each step, in nats; of what the first model cannot read, the second reads nothing."""
        model, reference = self._readers
        mine = await _log_likelihoods(model, nodes)
        read = [node for node, value in zip(nodes, mine, strict=True) if value is not None]
        theirs = dict(zip(read, await _log_likelihoods(reference, read), strict=True))
        ratios: list[float | None] = []
        for node, value in zip(nodes, mine, strict=True):
            other = theirs.get(node)
            ratios.append(None if value is None or other is None else value - other)
        return ratios

    def release(self, tree: Tree) -> None:
        """Drop what is kept of a tree that is done."""
        self._log_ratios.forget(tree)
        for reader in self._readers:
            reader.release(tree)


async def _log_likelihoods(reader: Reader | Recorded, nodes: Sequence[Node]) -> list[float | None]:
    """The log-probability of each whole step under a model."""
    readings = await reader.read(nodes, log_probabilities=True)
    return [None if each is None else math.fsum(each.log_probabilities or ()) for each in readings]
