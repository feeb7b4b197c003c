"""Labels from outcomes: of whole solutions, and of the wrong ones that convinced a reward model."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gradatim.supervision import ConvincingErrors, SolutionLabels, StepLabels
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from supervision_trees import VALUE, valued_trees

RATED = "process_reward"


def add(parent: Node, text: str, rating: float | None, reward: float | None = None) -> Node:
    end = EndReason.BOUNDARY if reward is None else EndReason.END_OF_TEXT
    node = parent.tree.add(parent, Step((ord(text),), text, end=end))
    node.reward = reward
    node.scores[VALUE] = reward or 0.0
    if rating is not None:
        node.scores[RATED] = rating
    return node


def by_hand() -> Tree:
    """Four wrong solutions and a right one: a-b (0.9, 0.4), a-c (0.9, 0.8), d (0.7), e (unrated), and f, right."""
    tree = Tree(Problem("p", "x\n"))
    first = add(tree.root, "a", 0.9)
    add(first, "b", 0.4, 0.0)
    add(first, "c", 0.8, 0.0)
    add(tree.root, "d", 0.7, 0.0)
    add(tree.root, "e", None, 0.0)
    add(tree.root, "f", 1.0, 1.0)
    return tree


def test_convincing_errors_by_hand() -> None:
    tree = by_hand()
    for count, expected in ((1, "ac"), (2, "acd"), (3, "abcd"), (9, "abcd")):
        terms = ConvincingErrors(count=count)(tree)
        assert "".join(term.ends[0].step.text for term in terms) == expected, "each step once, in the order of nodes"
    last = ConvincingErrors(count=2, aggregate="last")(tree)
    assert [term.ends[0].step.text for term in last] == ["a", "c", "d"]
    assert [term.targets for term in last] == [(0.0,)] * 3
    assert not ConvincingErrors(rated_by="other")(tree)


def test_labels_of_solutions_by_hand() -> None:
    tree = by_hand()
    add(tree.nodes[1], "g", 0.5)  # left open
    (cut,) = [tree.add(tree.root, Step((1,), "h", end=EndReason.LENGTH))]
    cut.reward = 0.0
    for steps, above in (("last", math.nan), ("all", 0.0)):
        terms = SolutionLabels(steps=steps)(tree)  # type: ignore[arg-type]
        texts = ["".join(node.step.text for node in term.groups[0].nodes) for term in terms]
        assert texts == ["ab", "ac", "d", "e", "f"]
        assert [term.targets for term in terms] == [(0.0,)] * 4 + [(1.0,)]
        assert str(terms[0].groups[0].targets) == str((above, 0.0))
    row = SolutionLabels.rows(SolutionLabels()(tree))[1]
    assert row == {"prompt": "x\n", "completion": "ac", "label": False}


@given(tree=valued_trees(), count=st.integers(1, 4))
def test_convincing_errors_of_any_tree_are_step_labels_of_wrong_solutions(tree: Tree, count: int) -> None:
    rated = ConvincingErrors(rated_by=VALUE, count=count, aggregate="last")(tree)
    assert [term for term in StepLabels()(tree) if term in rated] == rated
    wrong = [leaf for leaf in tree.solutions() if leaf.correct is False and VALUE in leaf.scores]
    highest = sorted(wrong, key=lambda leaf: -leaf.scores[VALUE])[:count]
    allowed = {node for leaf in highest for node in leaf.path()}
    assert {term.ends[0] for term in rated} <= allowed
    assert len({leaf for leaf in wrong if leaf in {term.ends[0] for term in rated}}) <= count
