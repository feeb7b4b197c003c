"""Step labels: which steps are labelled, and with what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gradatim.supervision import StepLabels, has_value
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from supervision_trees import VALUE, valued_trees


def add(tree: Tree, token: int, value: float, count: int | None, end: EndReason = EndReason.BOUNDARY) -> Node:
    node = tree.add(tree.root, Step((token,), f"{token}\n", end=end))
    node.scores[VALUE] = value
    if count is not None:
        node.counts[VALUE] = count
    return node


def test_labels_by_hand() -> None:
    tree = Tree(Problem("p", "x"))
    tree.root.scores[VALUE] = 0.5
    add(tree, 1, 0.25, 8)
    add(tree, 2, 0.0, 8)
    add(tree, 3, 1.0, 2)
    add(tree, 4, 0.75, None)
    add(tree, 5, 1.0, 1, EndReason.END_OF_TEXT)
    add(tree, 6, 0.0, 1, EndReason.LENGTH)
    add(tree, 7, 0.0, 8, EndReason.BUDGET)
    tree.add(tree.root, Step((8,), "8\n"))
    soft = {label.ends[0].id: label.targets[0] for label in StepLabels(value=VALUE, min_count=4)(tree)}
    assert soft == {1: 0.25, 2: 0.0, 4: 0.75, 5: 1.0, 6: 0.0}
    hard = {label.ends[0].id: label.targets[0] for label in StepLabels(value=VALUE, kind="hard")(tree)}
    assert hard == {1: 1.0, 2: 0.0, 3: 1.0, 4: 1.0, 5: 1.0, 6: 0.0}
    strict = {
        label.ends[0].id: label.targets[0] for label in StepLabels(value=VALUE, kind="hard", threshold=0.25)(tree)
    }
    assert strict == {1: 0.0, 2: 0.0, 3: 1.0, 4: 1.0, 5: 1.0, 6: 0.0}


@given(tree=valued_trees(), min_count=st.integers(1, 8), threshold=st.sampled_from([0.0, 0.25, 0.5]))
def test_labels_of_any_tree(tree: Tree, min_count: int, threshold: float) -> None:
    soft = StepLabels(value=VALUE, min_count=min_count)(tree)
    hard = StepLabels(value=VALUE, min_count=min_count, kind="hard", threshold=threshold)(tree)
    ids = [label.ends[0].id for label in soft]
    assert ids == sorted(set(ids)) == [label.ends[0].id for label in hard]
    assert 0 not in ids
    for one, other in zip(soft, hard, strict=True):
        (label,) = one.targets
        assert label == one.ends[0].scores[VALUE]
        assert other.targets == (1.0 if label > threshold else 0.0,)
        assert one.ends[0].step.end is not EndReason.BUDGET
    labelled = set(ids)
    for node in tree.nodes[1:]:
        trusted = not node.open or VALUE not in node.counts or node.counts[VALUE] >= min_count
        expected = VALUE in node.scores and node.step.end is not EndReason.BUDGET and trusted
        assert (node.id in labelled) == expected == has_value(node, VALUE, min_count)
