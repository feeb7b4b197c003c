"""Step labels: what each step of a tree is worth, as training targets."""

from __future__ import annotations

from typing import ClassVar, Literal

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import unpaired_preference_rows
from gradatim.supervision.terms import Term, labelled_step
from gradatim.supervision.values import SureStepValues, interval
from gradatim.tree import Node, Tree


@part
class StepLabels(SureStepValues, Construction):
    """Every step with its estimated value as its label (Math-Shepherd, Wang et al., 2023, arXiv:2312.08935).

    A soft label is the value itself: the share of solutions from here that are right. A hard label is 1 if the value
    is above ``threshold``, else 0; with threshold 0 a step is good if any solution from it was right: what a stepwise
    outcome model learns (Havrilla et al., *GLoRe*, 2024, arXiv:2402.10963). Labels come in the order of ``tree.nodes``,
    each step once, however many solutions share it.
    """

    what: ClassVar[str] = "step labels"
    groups: ClassVar[int] = 1
    has_targets: ClassVar[bool] = True
    rows = staticmethod(unpaired_preference_rows)

    kind: Literal["soft", "hard"] = "soft"
    """`soft` labels are the values, `hard` ones are 0 or 1."""
    threshold: float = 0.0
    """Above which value a hard label is 1."""

    def __call__(self, tree: Tree) -> list[Term]:
        labelled = [node for node in self.valued(tree.nodes[1:]) if self._is_sure(node)]
        return [labelled_step(node, self._label(node.scores[self.value])) for node in labelled]

    def _label(self, value: float) -> float:
        return value if self.kind == "soft" else float(value > self.threshold)

    def _is_sure(self, node: Node) -> bool:
        if not self.confident:
            return True
        low, high = interval(node, self.value)
        return low > 0.5 or high < 0.5
