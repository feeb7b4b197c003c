"""What a head on a model looks like, told without loading anything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeadShape:
    """A head: one linear layer, or two with a nonlinearity between them.

    Attributes:
        outputs: how many numbers it gives.
        hidden: width of the layer between; ``None`` for a linear head.
    """

    outputs: int = 1
    hidden: int | None = None
