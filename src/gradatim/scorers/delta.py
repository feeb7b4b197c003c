"""Rewards that repetition cannot add up: by how much each step changes the score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from gradatim.part import PartOf, part
from gradatim.scorers.base import Context, Scorer, ScorerPart
from gradatim.scorers.wrapper import Wrapper, WrapperPart
from gradatim.tree import Node


@part
class DeltaPart(WrapperPart):
    """By how much a step changes a scorer's score (Delta: Gao et al., 2024, arXiv:2410.15115)."""

    scorer: Annotated[ScorerPart, PartOf("scorers")]
    """The scorer; `clip` around another one refines its rewards by both."""

    def open(self, context: Context) -> DeltaScorer:
        return DeltaScorer(self.name, self.scorer.open(context))


class DeltaScorer(Wrapper):
    """Scores a step by its score less that of the step before it, a first step by its own.

    The sum over a path is the score of its last step, whatever was repeated on the way. The paper takes the step's own
    score less the next one's, of whole solutions: then what is still to come adds up to a step's own score. While a
    tree grows there is no next step yet, and later there are several, so here the step before it is meant.

    Args:
        name: the key in ``node.scores``.
        inner: the scorer; it is asked for the step before, too.
    """

    def __init__(self, name: str, inner: Scorer) -> None:
        super().__init__(name, [inner])

    def needed(self, nodes: Sequence[Node]) -> Iterator[Node]:
        for node in nodes:
            yield from (each for each in (node.parent, node) if each is not None and not each.is_root)

    def combined(self, node: Node, scores: Sequence[float]) -> float | None:
        if node.parent is None or node.parent.is_root:
            return scores[0]
        before = node.parent.scores.get(self.inner[0].name)
        return None if before is None else scores[0] - before
