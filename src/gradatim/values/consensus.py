"""Values on which two ways to tell them agree; a step on which they differ has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from gradatim.counts import note_counts
from gradatim.errors import GradatimError
from gradatim.part import PartOf, part
from gradatim.scorers.base import Context
from gradatim.tree import Node, Tree
from gradatim.values.base import Values

Inner = Annotated[Values, PartOf("values")]


@part
class Consensus(Values):
    """The mean of two values where they agree (consensus filtering: Zhang et al., 2025, arXiv:2501.07301).

    In the paper, estimates by rollouts and a language model's judgement must place the first error of a solution at the
    same step, or the solution is dropped: ``of: first_errors``, which keeps the steps up to that error. By ``steps``
    each step is looked at alone. A step without either value has none. What the two say lies beside the value, under
    its name with ``_first`` and ``_second`` behind; on how many steps they differ is noted with the tree.
    """

    first: Inner
    """One way to tell values."""
    second: Inner
    """The other one."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """By how much two values that agree may differ."""
    threshold: float | None = None
    """Values agree that are both above this, or both not, however much they differ; `null` compares the values."""
    of: Literal["steps", "first_errors"] = "steps"
    """What they must agree on: each step, or where a solution first goes wrong, by the threshold."""

    def __post_init__(self) -> None:
        if self.of == "first_errors" and self.threshold is None:
            raise GradatimError("a first error is told by a threshold: say up to which value a step is wrong")
        self._keyed()  # what they hold may have these keys

    @property
    def written(self) -> set[str]:
        return {self.key, *(name for each in self._keyed() for name in each.written)}

    def _keyed(self) -> tuple[Values, Values]:
        return replace(self.first, key=f"{self.key}_first"), replace(self.second, key=f"{self.key}_second")

    async def __call__(self, tree: Tree, context: Context) -> None:
        names = []
        for each in self._keyed():
            await each(tree, context)
            names.append(each.key)
        for node in tree.nodes[1:]:
            node.scores.pop(self.key, None)
            node.counts.pop(self.key, None)
        told = [node for node in tree.nodes[1:] if any(name in node.scores for name in names)]
        by_both = [node for node in told if all(name in node.scores for name in names)]
        agreed = self._agreed(by_both, names)
        for node in agreed:
            node.scores[self.key] = sum(node.scores[name] for name in names) / 2
            if counts := [node.counts[name] for name in names if name in node.counts]:
                node.counts[self.key] = min(counts)
        differ, alone = len(by_both) - len(agreed), len(told) - len(by_both)
        note_counts(tree, self.key, {"agreed on": len(agreed), "not agreed on": differ, "told by one alone": alone})

    def _agreed(self, by_both: list[Node], names: list[str]) -> list[Node]:
        """Those of the nodes with both values that keep one."""
        if self.of == "steps":
            return [node for node in by_both if self._agree(*(node.scores[name] for name in names))]
        known, kept = set(by_both), set[Node]()
        for leaf in dict.fromkeys(end for node in by_both for end in node.leaves()):
            path = leaf.path()[1:]
            wrong = [next((node for node in path if self._is_wrong(node, name)), None) for name in names]
            until = path[: leaf.depth if wrong[0] is None else wrong[0].depth]
            if wrong[0] is wrong[1] and known.issuperset(until):
                kept.update(until)
        return [node for node in by_both if node in kept]

    def _is_wrong(self, node: Node, name: str) -> bool:
        assert self.threshold is not None, "first errors were checked to have one"
        return name in node.scores and node.scores[name] <= self.threshold

    def _agree(self, one: float, other: float) -> bool:
        if self.threshold is not None:
            return (one > self.threshold) == (other > self.threshold)
        return abs(one - other) <= self.tolerance
