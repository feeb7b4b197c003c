"""Wrong steps behind right ones, each with the mark that takes it back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import prompt_completion_rows
from gradatim.supervision.terms import Term
from gradatim.supervision.traces import Piece, in_text, is_right_leaf, is_wrong, mark_step, trace_term
from gradatim.text.backtracking import MARK, Mark
from gradatim.tree import Node, Tree


@part
class SelfBacktracking(Construction):
    """The beginning of a right solution, a wrong step, and a mark (Yang et al., 2025, arXiv:2502.04404).

    The loss is that of the beginning and of the mark; the wrong step weighs nothing, so that the policy learns to take
    it back and not to write it. (Rows of a standard format cannot say so.) The paper learns from whole right solutions
    beside these: name `right_solutions` too. Wrong steps are those that were tried to an end without a right solution;
    one that ends the solution cannot be taken back and is not used. The search `self_backtracking` does what the marks
    say. Each trace is a tree of its own, of text.
    """

    what: ClassVar[str] = "wrong steps taken back"
    groups: ClassVar[int] = 1
    has_targets: ClassVar[bool] = False
    rows = staticmethod(prompt_completion_rows)

    mark: Mark = MARK
    """The step that takes the one before it back."""
    errors: PositiveInt = 1
    """Wrong steps behind each beginning at most, the first ones."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        beginnings = {node for leaf in tree.solutions() if is_right_leaf(leaf) for node in leaf.path()[:-1]}
        for node in tree.nodes:
            if node in beginnings:
                wrong = [child for child in node.children if child.open and is_wrong(child)]
                yield from (self._taken_back(child) for child in wrong[: self.errors])

    def _taken_back(self, wrong: Node) -> Term:
        *beginning, _ = wrong.path()[1:]
        pieces = [Piece(in_text(node.step)) for node in beginning]
        return trace_term(wrong.tree, [*pieces, Piece(in_text(wrong.step), 0.0), Piece(mark_step(self.mark))], wrong)
