"""Collaborative values: how often several other models finish rightly what a step began."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

from pydantic import Field, PositiveInt

from gradatim.part import part
from gradatim.scorers.base import Context, ModelName, ScorerPart, StepScorer
from gradatim.scorers.completions import Completions, reward_of
from gradatim.tree import Node, Tree


@part
class CollaborativePart(ScorerPart):
    """Mentor-intern score: the share of right solutions that several weaker models complete (arXiv:2506.16962)."""

    verifies: ClassVar[bool] = True

    interns: tuple[ModelName, ...] = Field(min_length=1)
    """The models that complete a step, each in trees and under an account of its own."""
    rollouts: PositiveInt = 4
    """Solutions of each intern behind each score."""

    def open(self, context: Context) -> CollaborativeScorer:
        return CollaborativeScorer(self.name, [Completions.by(each, context, self.rollouts) for each in self.interns])


class CollaborativeScorer(StepScorer):
    """Scores a step by the mean over interns of the share of their completions that are right.

    The score of Mentor-Intern Collaborative Search (Sun et al., 2025, arXiv:2506.16962): a step is good if it helps
    those who would not have found it. A finished step has its own reward. What not every intern could complete has no
    score. ``node.counts[name]`` is the number of solutions of all.

    Args:
        name: the key in ``node.scores``.
        interns: what completes steps by each.
    """

    def __init__(self, name: str, interns: Sequence[Completions]) -> None:
        super().__init__(name)
        self.interns = tuple(interns)

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        """The mean share of right completions."""
        completed = [await intern.of(nodes) for intern in self.interns]
        scores: list[float | None] = []
        for node, by_intern in zip(nodes, zip(*completed, strict=True), strict=True):
            if all(by_intern):
                scores.append(fmean(fmean(map(reward_of, solutions)) for solutions in by_intern))
                node.counts[self.name] = sum(map(len, by_intern))
            else:
                scores.append(None)
        return scores

    def release(self, tree: Tree) -> None:
        """Forget the interns' solutions of a tree that is done."""
        for intern in self.interns:
            intern.release(tree)
