"""Progress: how much a step raises the chance of a prover, which is another policy than the one that is searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, FiniteFloat

from gradatim.part import PartOf, part
from gradatim.scorers.base import Context, Scorer, ScorerPart
from gradatim.scorers.wrapper import Wrapper, WrapperPart
from gradatim.tree import Node


@part
class ProgressPart(WrapperPart):
    """Progress: a prover's chance of success after a step less that before it (PAV, 2024, arXiv:2410.08146).

    The prover is a scorer: rollouts of a model of the recipe, which tries `best_of` times, or a reward model that was
    trained on the values of such rollouts. With `value`, the policy's own value of the step, a search is guided by
    that plus `alpha` times the progress.
    """

    prover: Annotated[ScorerPart, PartOf("scorers")]
    """The prover's chance of success, such as `{name: rollouts, model: prover, best_of: 4}`."""
    value: Annotated[ScorerPart, PartOf("scorers")] | None = None
    """The policy's own value of a step, to which progress is added; `null` for progress alone."""
    alpha: Annotated[FiniteFloat, Field(ge=0)] = 0.5
    """How much progress counts beside that value."""
    start: FiniteFloat | None = None
    """The chance before the first step; `null` asks the prover what the prompt is worth."""

    def open(self, context: Context) -> ProgressScorer:
        value = None if self.value is None else self.value.open(context)
        return ProgressScorer(self.name, self.prover.open(context), value, self.alpha, self.start)


class ProgressScorer(Wrapper):
    """Scores a step by its progress ``A = prover(step) - prover(step before)``, or by ``value(step) + alpha * A``.

    That is the effective reward of Setlur et al., *Rewarding Progress* (2024, arXiv:2410.08146). Where a solution is
    finished or cut off there is nothing left to be explored: with a value it is judged by that alone, and the prover is
    not asked. A prover by rollouts gives a finished step the verifier's reward.

    Args:
        name: the key in ``node.scores``.
        prover: the prover's chance of success.
        value: the policy's own value of a step; ``None`` for progress alone.
        alpha: how much progress counts beside it.
        start: the chance before the first step; ``None`` asks the prover.
    """

    def __init__(
        self, name: str, prover: Scorer, value: Scorer | None = None, alpha: float = 0.5, start: float | None = None
    ) -> None:
        super().__init__(name, [prover] if value is None else [prover, value])
        self.prover = prover
        self.value = value
        self.alpha = alpha
        self.start = start

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        """What each step adds; ``None`` where the prover has no score of it or of the step before."""
        done = [] if self.value is None else [node for node in nodes if not node.open]
        explored = [node for node in nodes if self.value is None or node.open]
        before = [node.parent for node in explored if node.parent is not None]
        await self.prover.score([node for node in before if self.start is None or not node.is_root])
        found = dict(zip(explored, await super().judged(explored), strict=True))
        if self.value is not None:
            await self.value.score(done)
            found |= {node: node.scores.get(self.value.name) for node in done}
        return [found[node] for node in nodes]

    def combined(self, node: Node, scores: Sequence[float]) -> float | None:
        before = self._before(node)
        if before is None:
            return None
        progress = scores[0] - before
        return scores[1] + self.alpha * progress if len(scores) > 1 else progress

    def _before(self, node: Node) -> float | None:
        if node.parent is None or (node.parent.is_root and self.start is not None):
            return self.start
        return node.parent.scores.get(self.prover.name)
