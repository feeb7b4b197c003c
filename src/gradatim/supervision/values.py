"""Values of steps that can be learned from."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import PositiveInt

from gradatim.part import options
from gradatim.proportions import wilson_interval
from gradatim.supervision.terms import Term, pair
from gradatim.tree import EndReason, Node, Tree


def has_value(node: Node, value: str, min_count: int = 1) -> bool:
    """Whether a node has a value that can be learned from.

    It needs ``node.scores[value]``, and at least ``min_count`` in ``node.counts[value]`` unless the value is exact: a
    step that is not open has the verifier's value, and a score without a count is no estimate. A step that the budget
    cut off is a fragment that nothing should be learned from.
    """
    if value not in node.scores or node.step.end is EndReason.BUDGET:
        return False
    return not node.open or node.counts.get(value, min_count) >= min_count


def value_before(node: Node, value: str, min_count: int = 1) -> float | None:
    """The value of what a step continues: of the step before it, or of the prompt, which is the mean of its first
    steps, each by how often it was drawn, where nothing else tells it. ``None`` where that cannot be learned from."""
    before = node.parent
    if before is None:
        return None
    if has_value(before, value, min_count):
        return before.scores[value]
    first = [each for each in before.children if has_value(each, value, min_count)] if before.is_root else []
    if not first:
        return None
    return sum(each.multiplicity * each.scores[value] for each in first) / sum(each.multiplicity for each in first)


def judged_ends(tree: Tree) -> list[Node]:
    """The ends of all solutions that a verifier judged, in the order of ``tree.nodes``; those that a limit cut off are
    among them, as wrong ones, and those that the budget cut off are not."""
    return [
        node
        for node in tree.nodes[1:]
        if not (node.children or node.open or node.step.end is EndReason.BUDGET) and node.reward is not None
    ]


def interval(node: Node, value: str) -> tuple[float, float]:
    """Where the value of a node lies with 95 % confidence, by the number of solutions that it rests on: the Wilson
    interval of a share. The value itself where it is exact, as :func:`has_value` says.

    Raises:
        GradatimError: if it is no share.
    """
    if not node.open or value not in node.counts:
        return node.scores[value], node.scores[value]
    return wilson_interval(node.scores[value], node.counts[value])


@options
class StepValues:
    """Which values constructions read."""

    value: str = "value"
    """The score that says what a step is worth."""
    min_count: PositiveInt = 1
    """Rollouts or visits that the value of an open step must rest on."""

    def has_value(self, node: Node) -> bool:
        """Whether the node has such a value; see :func:`has_value`."""
        return has_value(node, self.value, self.min_count)

    def before(self, node: Node) -> float | None:
        """The value of what a step continues; see :func:`value_before`."""
        return value_before(node, self.value, self.min_count)

    def valued(self, nodes: Iterable[Node]) -> list[Node]:
        """Those of the nodes that have such a value."""
        return [node for node in nodes if self.has_value(node)]


@options
class SureStepValues(StepValues):
    """Which values constructions read that may leave out what is in doubt."""

    confident: bool = False
    """Use only what is beyond doubt by the 95 % intervals of the values: of single steps those above or below one half,
    of pairs, and of the ends of rankings, those that do not overlap."""

    def ordered(self, first: Node, second: Node) -> Term:
        """The pair of two nodes that have values, the better one chosen, the first one of equals."""
        one, other = first.scores[self.value], second.scores[self.value]
        return pair(first, second, (one, other)) if one >= other else pair(second, first, (other, one))

    def are_apart(self, better: Node, worse: Node, min_gap: float = 0.0) -> bool:
        """Whether the first of two nodes that have values is better, by so much, and as surely as is asked for."""
        gap = better.scores[self.value] - worse.scores[self.value]
        if gap <= 0 or gap < min_gap:
            return False
        return not self.confident or interval(better, self.value)[0] > interval(worse, self.value)[1]
