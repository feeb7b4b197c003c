"""A step judged alone and together with the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from gradatim.errors import GradatimError
from gradatim.part import PartOf, part
from gradatim.scorers.apart import Apart
from gradatim.scorers.base import Context, StepScorer
from gradatim.scorers.layouts import OwnLayout
from gradatim.scorers.process_reward import ProcessRewardPart, ProcessRewardScorer
from gradatim.scorers.wrapper import WrapperPart
from gradatim.tree import Node, Tree


@part
class HierarchicalPart(WrapperPart):
    """A reward model's score of a step, and of it merged with the step before (HRM, 2025, arXiv:2503.13551).

    The merged step is what the model reads in its layout without its mark of a step's end between the two. Reward
    models that are trained here have no such mark: they would read the same, and are refused.
    """

    scorer: Annotated[ProcessRewardPart, PartOf("scorers")] = ProcessRewardPart()
    """The reward model."""
    merged: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How much the merged step counts; the step alone has the rest, and a first step everything."""
    joint: str = "\n"
    """What stands between merged steps, in the place of white space at the first one's end."""

    def open(self, context: Context) -> HierarchicalScorer:
        return HierarchicalScorer(self.name, self.scorer.open(context), self.merged, self.joint)


class HierarchicalScorer(StepScorer):
    """Scores a step by ``(1 - merged) * score(step) + merged * score(the step before and the step, as one)``.

    Both are read in a tree of their own, as text, in which paths that end in a merged step branch off those of single
    steps, so that what they share is read once. The score of the step alone is kept under the reward model's name.

    Args:
        name: the key in ``node.scores``.
        inner: the reward model, which must mark the end of each step.
        merged: how much the merged step counts.
        joint: what stands between merged steps.

    Raises:
        GradatimError: if the reward model's layout marks no steps.
    """

    def __init__(self, name: str, inner: ProcessRewardScorer, merged: float = 0.5, joint: str = "\n") -> None:
        if inner.layout is None or isinstance(inner.layout, OwnLayout):
            raise GradatimError(
                f"{name!r} needs a reward model that marks the end of each step, and this one reads steps as they are, "
                "merged or not; name a model in another layout, or the scorer process_reward"
            )
        super().__init__(name)
        self.inner = inner
        self.merged = merged
        self.joint = joint
        self._apart = Apart()
        self._differs = False

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        """Both scores in one; ``None`` where either is missing."""
        single = {node: self._apart.counterpart(node) for node in nodes}
        merged = {node: self._merged(node) for node in nodes if node.depth > 1}
        for node, each in single.items():
            if self.inner.name in node.scores:  # a search may have asked before
                each.scores[self.inner.name] = node.scores[self.inner.name]
        asked = [each for node in nodes for each in (single[node], merged.get(node))]
        await self.inner.score([each for each in asked if each is not None])
        return [self._combined(node, single[node], merged.get(node)) for node in nodes]

    def _combined(self, node: Node, single: Node, merged: Node | None) -> float | None:
        alone = single.scores.get(self.inner.name)
        if alone is None:
            return None
        node.scores[self.inner.name] = alone
        if merged is None:
            return alone
        together = merged.scores.get(self.inner.name)
        return None if together is None else (1 - self.merged) * alone + self.merged * together

    def _merged(self, node: Node) -> Node:
        """The node of a step that is one with the step before it."""
        assert node.parent is not None, "the step is no first one"
        assert node.parent.parent is not None, "the step is no first one"
        single, before = self._apart.counterpart(node), self._apart.counterpart(node.parent.parent)
        text = node.parent.step.text_with_observation.rstrip() + self.joint + node.step.text
        merged = before.tree.add(before, replace(single.step, text=text, observation_text=""))
        if not self._differs:  # what is true of two steps is true of all
            as_read = self.inner.reader.as_read
            if as_read(merged).tokens_before_observation == as_read(single).tokens_before_observation:
                raise GradatimError(
                    f"{self.name!r} would read two merged steps as it reads them apart, since {self.joint!r} is what "
                    "the layout writes between steps; set joint to something else, such as a space"
                )
            self._differs = True
        return merged

    def release(self, tree: Tree) -> None:
        """Forget the tree that stood for one that is done."""
        stood_for_it = self._apart.forget(tree)
        for each in (tree, stood_for_it):
            if each is not None:
                self.inner.release(each)
