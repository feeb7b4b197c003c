"""Q-values against the Bellman equation written out, and what they are in their limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from gradatim.values.backup import back_up_values
from gradatim.values.q_values import QValues
from supervision_trees import valued_trees

NO_CONTEXT: Any = None


def write(tree: Tree, **options: Any) -> None:
    asyncio.run(QValues(**options)(tree, NO_CONTEXT))


def graded(tree: Tree) -> Tree:
    for node in tree.nodes:
        if node.finished and node.reward is None:
            node.reward = 1.0
    return tree


def bellman(node: Node, backup: str, discount: float) -> float | None:
    """By recursion over the best, or every, path below."""
    if not node.children:
        return None if node.open or node.step.end is EndReason.BUDGET else node.reward or 0.0
    below = [(child.multiplicity, q) for child in node.children if (q := bellman(child, backup, discount)) is not None]
    if not below:
        return None
    mean = sum(weight * q for weight, q in below) / sum(weight for weight, _ in below)
    return (node.reward or 0.0) + discount * (mean if backup == "mean" else max(q for _, q in below))


@given(tree=valued_trees(), backup=st.sampled_from(["max", "mean"]), discount=st.sampled_from([1.0, 0.5]))
def test_q_values_satisfy_the_bellman_equation(tree: Tree, backup: Any, discount: float) -> None:
    graded(tree)
    write(tree, backup=backup, discount=discount, key="q")
    for node in tree.nodes:
        expected = bellman(node, backup, discount)
        assert node.scores.get("q") == (None if expected is None else pytest.approx(expected))


@given(tree=valued_trees())
def test_an_undiscounted_mean_is_the_backup(tree: Tree) -> None:
    graded(tree)
    write(tree, backup="mean", key="q")
    back_up_values(tree, "plain")
    assert [node.scores.get("q") for node in tree.nodes] == [node.scores.get("plain") for node in tree.nodes]


def test_by_hand() -> None:
    """root -> a -> (wrong, right twice as long), and rewards on the way."""
    tree = Tree(Problem("p", "x"))
    first = tree.add(tree.root, Step((1,), "a"))
    tree.add(first, Step((2,), "b", end=EndReason.END_OF_TEXT)).reward = 0.0
    second = tree.add(first, Step((3,), "c"))
    tree.add(second, Step((4,), "d", end=EndReason.END_OF_TEXT)).reward = 1.0
    tree.add(first, Step((5,), "e"))  # open: says nothing
    write(tree, discount=0.9)
    assert [node.scores.get("value") for node in tree.nodes] == pytest.approx(
        [0.9**3, 0.9**2, 0.0, 0.9, 1.0, None], nan_ok=True
    )
    second.reward = 0.25  # an environment's, for a step that is no end
    write(tree)
    assert first.scores["value"] == 1.25
    assert first.counts["value"] == 2


def test_bad_input_is_refused() -> None:
    with pytest.raises(GradatimError, match="discount"):
        QValues(discount=0.0)
    tree = Tree(Problem("p", "x"))
    tree.add(tree.root, Step((1,), "a", end=EndReason.END_OF_TEXT))
    with pytest.raises(GradatimError, match="no reward; grade the tree"):
        write(tree)
