"""The outcome of a solution, spread over its steps by what the reward model looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gradatim.errors import GradatimError
from gradatim.part import PartOf, part
from gradatim.scorers.base import Context
from gradatim.scorers.process_reward import ProcessRewardPart
from gradatim.tree import Node, Tree
from gradatim.values.base import Values


@part
class Redistributed(Values):
    """A solution's outcome, spread over its steps by the reward model's attention (ABC, 2024, arXiv:2402.00782).

    "Dense Reward for Free" (Chan et al.): the reward model scores a whole solution at its last token, and how much that
    token attends to each step (the mean over the heads of the last layer, without the prompt) is the step's share of
    the outcome. The shares add up to the outcome, so what is maximised stays the same: they are a potential-based
    shaping of it. A step that several solutions share has the mean of its shares in them, each as often as it was
    drawn; steps of no finished solution have no value.
    """

    samples: ClassVar[bool] = True

    scorer: Annotated[ProcessRewardPart, PartOf("scorers")] = ProcessRewardPart()
    """The reward model whose attention is read."""
    outcome: Literal["reward", "score"] = "reward"
    """What is spread: the verifier's `reward`, or the reward model's own `score` of the solution."""
    spread: float = Field(default=1.0, ge=0, le=1)
    """Which part of it is spread; the rest stays at the last step."""

    def __post_init__(self) -> None:
        if self.scorer.name == self.key:
            raise GradatimError(
                f"the values and the reward model within write scores of one name, {self.key!r}; give the values "
                "another key"
            )

    async def __call__(self, tree: Tree, context: Context) -> None:
        scorer = self.scorer.open(context)
        solutions = tree.solutions()
        await scorer.score(solutions)
        readings = await scorer.reader.read(solutions, attention=True)
        for node in tree.nodes:
            node.scores.pop(self.key, None)
            node.counts.pop(self.key, None)
        sums: dict[Node, float] = {}
        for leaf, reading in zip(solutions, readings, strict=True):
            if reading is None or scorer.name not in leaf.scores:  # the budget could not pay, or it is too long
                continue
            assert reading.attention is not None, "it was asked for"
            credit = shares(reading.attention[1:], self._outcome(leaf, scorer.name), self.spread)
            for node, each in zip(leaf.path()[1:], credit, strict=True):
                sums[node] = sums.get(node, 0.0) + leaf.multiplicity * each
                node.counts[self.key] = node.counts.get(self.key, 0) + leaf.multiplicity
        for node, total in sums.items():
            node.scores[self.key] = total / node.counts[self.key]
        scorer.release(tree)

    def _outcome(self, leaf: Node, name: str) -> float:
        if self.outcome == "score":
            return leaf.scores[name]
        if leaf.reward is None:
            raise GradatimError(
                f"a solution of problem {leaf.tree.problem.id!r} has no reward; grade the tree, or spread the score"
            )
        return leaf.reward


def shares(attention: Sequence[float], outcome: float, spread: float = 1.0) -> list[float]:
    """The outcome divided over steps by how much each is attended to; they add up to it.

    Args:
        attention: of each step, none negative; where it is 0 of all, the last step has everything.
        outcome: what is divided.
        spread: which part of it; the rest is the last step's.
    """
    total = sum(attention)
    part = spread * outcome if total > 0 else 0.0
    found = [part * (each / total) if total > 0 else 0.0 for each in attention]
    found[-1] += outcome - part
    return found
