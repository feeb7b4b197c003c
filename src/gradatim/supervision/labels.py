"""Step labels: what each step of a tree is worth, as training targets for process reward models."""

from __future__ import annotations

from dataclasses import dataclass

from gradatim.tree import Node


@dataclass(frozen=True, slots=True)
class StepLabel:
    """A step and its label.

    Attributes:
        node: the step.
        label: from 0 (bad) to 1 (good).
        weight: how much it counts in a loss.
    """

    node: Node
    label: float
    weight: float = 1.0
