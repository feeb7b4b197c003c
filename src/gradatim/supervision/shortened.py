"""Right solutions of which steps are left out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from gradatim.supervision.terms import Term, path_term
from gradatim.supervision.traces import Piece, in_text, trace_term
from gradatim.tree import Node, Tree

LEFT_OUT = "the task must call a solution right of which steps are left out, as one does that asks for the answer alone"
"""What constructions of such solutions ask for."""


def shortened_solutions(tree: Tree, kept: Callable[[Node, Sequence[Node]], Sequence[Node]]) -> Iterator[Term]:
    """The right solutions of a tree, in each of them the steps that ``kept`` keeps and the last one, each text once.

    A solution that keeps all of its steps is itself. Any other is a tree of its own, of text, whose verdict is not
    known: what was right as a whole may not be so without a step.

    Args:
        tree: the tree.
        kept: given the end of a solution and its steps but the last, those of them to keep.
    """
    seen: set[tuple[str, ...]] = set()
    for end in tree.solutions():
        if not end.correct:
            continue
        *steps, _ = end.path()[1:]
        left = kept(end, steps)
        texts = tuple(node.step.text for node in (*left, end))
        if texts not in seen:
            seen.add(texts)
            whole = len(left) == len(steps)
            yield path_term(end) if whole else trace_term(tree, [Piece(in_text(node.step)) for node in (*left, end)])


def chance_of(end: Node, seed: int) -> random.Random:
    """Random numbers of a solution: the same whenever the tree is read."""
    return random.Random(f"{seed} {end.tree.problem.id} {end.text}")
