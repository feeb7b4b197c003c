"""What search traces are made of: which steps were wrong, and steps of a searched tree as the text of a new one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from gradatim.supervision.filters.difficulty import note_share_right
from gradatim.supervision.terms import Group, Term
from gradatim.tree import EndReason, Node, Step, Tree


class Piece(NamedTuple):
    """A step of a trace, and how much it is learned."""

    step: Step
    weight: float = 1.0


def is_right_leaf(node: Node) -> bool:
    """Whether a right solution ends with a node."""
    return node.finished and not node.children and node.correct is True


def is_wrong(node: Node) -> bool:
    """Whether what was tried from a step on came to its end, and no right solution was among it."""
    leaves = list(node.leaves())
    return any(leaf.correct is not None for leaf in leaves) and not any(map(is_right_leaf, leaves))


def in_text(step: Step) -> Step:
    """A step of a trace: its text alone, since what stands before it in the trace is not what it was sampled after."""
    return replace(step, tokens=(), log_probabilities=(), observation=())


def open_line(node: Node) -> Step:
    """A step of a trace that another one follows: one that ended a solution gets the line end that it lacks."""
    step = in_text(node.step)
    text = step.text if node.open or step.text.endswith("\n") else f"{step.text}\n"
    return replace(step, text=text, end=EndReason.BOUNDARY)


def ending(node: Node) -> Step:
    """The last step of a trace, which ends with the policy's end token, as nothing else ends a search."""
    return replace(in_text(node.step), end=EndReason.END_OF_TEXT)


def mark_step(mark: str) -> Step:
    """The step that takes the one before it back."""
    return Step((), mark)


def trace_term(tree: Tree, pieces: Iterable[Piece], outcome: Node | None = None) -> Term:
    """A tree with the pieces as its single path, as a term of a loss that weighs them.

    Args:
        tree: the tree that was searched.
        pieces: the steps of the trace, in order.
        outcome: the solution whose verdict is the trace's; ``None`` where it is known only when the task was asked
            (:func:`gradatim.supervision.verified.verified`).
    """
    node = Tree(tree.problem, seed=tree.seed).root
    weights = []
    for piece in pieces:
        node = node.tree.add(node, piece.step)
        weights.append(piece.weight)
    note_share_right(node.tree, tree)
    if outcome is not None:
        node.reward, node.correct, node.answer = outcome.reward, outcome.correct, outcome.answer
    return Term((Group(tuple(node.path()[1:]), () if all(weight == 1 for weight in weights) else tuple(weights)),))
