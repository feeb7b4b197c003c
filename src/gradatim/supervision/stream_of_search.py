"""Searches written as one text, from which a policy learns to search by itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

from pydantic import NonNegativeInt, PositiveInt

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import prompt_completion_rows
from gradatim.supervision.terms import Term
from gradatim.supervision.traces import (
    Piece,
    ending,
    is_right_leaf,
    is_wrong,
    mark_step,
    open_line,
    trace_term,
)
from gradatim.text.backtracking import MARK, Mark
from gradatim.tree import Node, Tree


@part
class StreamOfSearch(Construction):
    """A tree as one search with its mistakes that ends rightly (Gandhi et al., 2024, arXiv:2404.03683).

    The trace is the depth-first walk of the tree to its first right solution: wherever the walk leaves a step that
    led to nothing, a mark takes that step back. Wrong steps are those that were tried to an end without a right
    solution; the marks leave exactly the solution's own steps standing (the task `traces` reads a trace so). With
    ``guided`` it is a guided stream of search (arXiv:2410.02992): the steps of the shortest right
    solution are landmarks, and the wrong branches are spread evenly over them. Trees without a right solution give
    nothing. A trace is a tree of its own, of text; every step of it is a line.
    """

    what: ClassVar[str] = "search traces"
    groups: ClassVar[int] = 1
    has_targets: ClassVar[bool] = False
    rows = staticmethod(prompt_completion_rows)

    mark: Mark = MARK
    """The step that takes the one before it back."""
    wrong: NonNegativeInt = 4
    """Wrong branches of a trace at most; the walk takes the first ones."""
    depth: PositiveInt = 8
    """Steps of a wrong branch at most; what lies deeper is left out."""
    guided: bool = False
    """Spread the wrong branches over the steps of the shortest right solution."""
    learn_wrong: bool = True
    """Learn to write the wrong steps too, as the papers do; else only the marks and what stands."""

    def __call__(self, tree: Tree) -> Iterator[Term]:
        right = list(filter(is_right_leaf, tree.leaves()))  # in depth-first order
        if not right:
            return
        solution = min(right, key=lambda leaf: leaf.depth) if self.guided else right[0]
        pieces: list[Piece] = []
        landmarks = list(pairwise(solution.path()))
        for (landmark, following), branches in zip(landmarks, self._branches(landmarks), strict=True):
            for node in self._wrong_children(landmark, following):
                if branches > 0:
                    walk, used = self._walk(node, self.depth, 1 if self.guided else branches)
                    pieces += walk
                    branches -= used
            pieces.append(Piece(ending(solution) if following is solution else open_line(following)))
        yield trace_term(tree, pieces, solution)

    def _branches(self, landmarks: list[tuple[Node, Node]]) -> list[int]:
        """How many wrong branches are walked below each landmark."""
        there = [sum(self._size(node) for node in self._wrong_children(*each)) for each in landmarks]
        taken = [0] * len(there)
        left = self.wrong
        while left > 0 and taken != there:
            for place, most in enumerate(there):
                more = min(left, most - taken[place], 1 if self.guided else left)
                taken[place] += more
                left -= more
        return taken

    def _wrong_children(self, landmark: Node, following: Node) -> list[Node]:
        """The wrong steps below a landmark: those that a depth-first walk takes before the right one, or all."""
        before = landmark.children if self.guided else landmark.children[: landmark.children.index(following)]
        return [node for node in before if node is not following and self._is_written(node) and is_wrong(node)]

    def _size(self, node: Node) -> int:
        """How many branches the walk of a wrong step has."""
        return 1 if self.guided else self._walk(node, self.depth, self.wrong)[1]

    def _walk(self, node: Node, depth: int, branches: int) -> tuple[list[Piece], int]:
        """The walk of a wrong step and what was tried below it, with the mark that takes it back, and its branches."""
        pieces = [Piece(open_line(node), float(self.learn_wrong))]
        used = 0
        for child in node.children if depth > 1 else ():
            if used < branches and self._is_written(child):
                walk, more = self._walk(child, depth - 1, branches - used)
                pieces += walk
                used += more
        return [*pieces, Piece(mark_step(self.mark))], max(1, used)

    def _is_written(self, node: Node) -> bool:
        """Whether a step is whole and has a text."""
        return not node.step.end.cuts_off and bool(node.step.text.strip())
