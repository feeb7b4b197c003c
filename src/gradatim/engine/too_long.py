"""What is longer than a model reads: one item that is left out, counted and told of, and never the end of a run."""

from __future__ import annotations

import warnings

from gradatim.tree import Node


class TooLong:
    """Counts the nodes whose paths a model cannot read; the first one is told of in a warning.

    Args:
        reader: what the model is and does with tokens: ``"the reward model reads"``.
        longest: the most tokens that it does it with.
        consequence: what becomes of such nodes: ``"stays unexpanded"``.

    Attributes:
        count: how many there were so far, each time that one was asked for.
    """

    def __init__(self, reader: str, longest: int, consequence: str) -> None:
        self._reader, self._longest, self._consequence = reader, longest, consequence
        self.count = 0

    def note(self, node: Node, tokens: int) -> None:
        """Count a node whose path has so many ``tokens``."""
        self.count += 1
        if self.count == 1:
            what = "prompt" if node.is_root else "solution"
            warnings.warn(
                f"a {what} of problem {node.tree.problem.id!r} has {tokens:,} tokens, but {self._reader} at most "
                f"{self._longest:,}, so it {self._consequence}, as does whatever else is too long; use shorter prompts "
                "or a model with a longer context",
                stacklevel=4,
            )
