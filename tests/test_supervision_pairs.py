"""Preference pairs: what is compared with what, and in which order."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from gradatim.supervision import StepPair, has_value, path_pairs, sibling_pairs, step_dpo_pairs
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from supervision_trees import VALUE, valued_trees

Mode = Literal["best_worst", "all"]


def family(values: list[float]) -> Tree:
    tree = Tree(Problem("p", "x"))
    for token, value in enumerate(values):
        tree.add(tree.root, Step((token,), f"{token}\n")).scores[VALUE] = value
    return tree


def ids(pairs: list[StepPair]) -> list[tuple[int, int]]:
    return [(pair.chosen.id, pair.rejected.id) for pair in pairs]


def test_best_against_worst_by_hand() -> None:
    tree = family([0.5, 1.0, 0.0, 1.0, 0.0])
    assert sibling_pairs(tree, value=VALUE) == [StepPair(tree.nodes[2], tree.nodes[3], margin=1.0)]
    assert sibling_pairs(family([0.5, 0.75]), value=VALUE, min_gap=0.5) == []
    assert ids(sibling_pairs(family([0.25, 0.75]), value=VALUE, min_gap=0.5)) == [(2, 1)]
    assert sibling_pairs(family([0.5, 0.5]), value=VALUE) == []
    assert sibling_pairs(family([0.5]), value=VALUE) == []


def test_all_pairs_come_widest_gap_first_and_can_be_bounded() -> None:
    tree = family([0.5, 1.0, 0.0])
    assert ids(sibling_pairs(tree, value=VALUE, mode="all")) == [(2, 3), (2, 1), (1, 3)]
    assert ids(sibling_pairs(tree, value=VALUE, mode="all", max_pairs_per_parent=2)) == [(2, 3), (2, 1)]
    assert ids(sibling_pairs(tree, value=VALUE, mode="all", min_gap=0.6)) == [(2, 3)]


@given(
    tree=valued_trees(),
    min_gap=st.sampled_from([0.0, 0.25, 0.5]),
    mode=st.sampled_from(["best_worst", "all"]),
    bound=st.sampled_from([None, 1, 2]),
    min_count=st.integers(1, 4),
)
def test_sibling_pairs_of_any_tree(tree: Tree, min_gap: float, mode: Mode, bound: int | None, min_count: int) -> None:
    def pairs_of(grown: Tree) -> list[StepPair]:
        return sibling_pairs(
            grown, value=VALUE, min_gap=min_gap, mode=mode, max_pairs_per_parent=bound, min_count=min_count
        )

    pairs = pairs_of(tree)
    for pair in pairs:
        assert pair.chosen.parent is pair.rejected.parent is not None
        assert pair.margin == pair.chosen.scores[VALUE] - pair.rejected.scores[VALUE]
        assert pair.margin > 0
        assert pair.margin >= min_gap
        assert has_value(pair.chosen, VALUE, min_count)
        assert has_value(pair.rejected, VALUE, min_count)
    assert len(set(ids(pairs))) == len(pairs)
    assert ids(pairs) == ids(pairs_of(Tree.from_json(tree.to_json())))
    order = [(parent_id(pair), -pair.margin) for pair in pairs]
    assert order == sorted(order)
    for parent in tree.nodes:
        values = [child.scores[VALUE] for child in parent.children if has_value(child, VALUE, min_count)]
        gaps = [one - other for one, other in product(values, values) if one - other >= max(min_gap, 1e-9)]
        found = [pair.margin for pair in pairs if pair.chosen.parent is parent]
        expected = sorted(gaps, reverse=True)[: 1 if mode == "best_worst" else bound]
        assert found == expected


def parent_id(pair: StepPair) -> int:
    assert pair.chosen.parent is not None
    return pair.chosen.parent.id


def test_step_dpo_by_hand() -> None:
    tree = family([0.5, 0.0, 0.75, 0.0])
    assert ids(step_dpo_pairs(tree, value=VALUE)) == [(3, 2), (3, 4)]
    wrong = tree.nodes[2]
    for token, value in ((8, 1.0), (9, 0.0)):  # after a wrong step nothing is a first error
        tree.add(wrong, Step((token,), "x")).scores[VALUE] = value
    assert ids(step_dpo_pairs(tree, value=VALUE)) == [(3, 2), (3, 4)]
    right = tree.nodes[1]
    for token, value in ((8, 1.0), (9, 0.0)):
        tree.add(right, Step((token,), "x")).scores[VALUE] = value
    assert ids(step_dpo_pairs(tree, value=VALUE)) == [(3, 2), (3, 4), (7, 8)]
    assert step_dpo_pairs(family([0.0, 0.0]), value=VALUE) == []


@given(tree=valued_trees(), threshold=st.sampled_from([0.0, 0.25, 0.5]))
def test_step_dpo_rejects_first_errors_only(tree: Tree, threshold: float) -> None:
    def good(node: Node) -> bool:
        return has_value(node, VALUE) and node.scores[VALUE] > threshold

    pairs = step_dpo_pairs(tree, value=VALUE, threshold=threshold)
    for pair in pairs:
        assert pair.chosen.parent is pair.rejected.parent
        assert all(good(node) for node in pair.chosen.path()[1:])
        assert pair.rejected.scores[VALUE] <= threshold
    expected = {
        node
        for node in tree.nodes[1:]
        if has_value(node, VALUE)
        and not good(node)
        and all(good(before) for before in node.path()[1:-1])
        and any(good(other) for other in node.siblings())
    }
    assert {pair.rejected for pair in pairs} == expected
    assert len(pairs) == len(expected)


@given(tree=valued_trees(max_nodes=25), bound=st.sampled_from([None, 0, 1, 3, 5]))
def test_path_pairs_use_solutions_evenly(tree: Tree, bound: int | None) -> None:
    right = [leaf for leaf in tree.solutions() if leaf.reward == 1.0]
    wrong = [leaf for leaf in tree.solutions() if leaf.reward in (0.0, 0.5)]
    pairs = path_pairs(tree, max_pairs=bound)
    everything = len(right) * len(wrong)
    assert len(set(ids(pairs))) == len(pairs) == (everything if bound is None else min(bound, everything))
    for leaves, side in ((right, "chosen"), (wrong, "rejected")):
        used = Counter(getattr(pair, side) for pair in pairs)
        assert set(used) <= set(leaves)
        if pairs:
            assert max(used.values()) - min(used[leaf] for leaf in leaves) <= 1
    assert all(pair.margin == (pair.chosen.reward or 0) - (pair.rejected.reward or 0) for pair in pairs)


def test_path_pairs_cover_every_combination_of_equally_many() -> None:
    tree = Tree(Problem("p", "x"))
    for token, reward in enumerate((1.0, 1.0, 0.0, 0.0, 0.0, 0.0)):
        tree.add(tree.root, Step((token,), "a", end=EndReason.END_OF_TEXT)).reward = reward
    assert ids(path_pairs(tree)) == [(1, 3), (2, 4), (1, 5), (2, 6), (1, 4), (2, 5), (1, 6), (2, 3)]


def test_path_pairs_pass_over_what_was_cut_off_or_not_graded() -> None:
    tree = Tree(Problem("p", "x"))
    tree.add(tree.root, Step((1,), "a", end=EndReason.END_OF_TEXT)).reward = 1.0
    tree.add(tree.root, Step((2,), "b", end=EndReason.LENGTH)).reward = 0.0
    tree.add(tree.root, Step((3,), "c", end=EndReason.END_OF_TEXT))
    assert path_pairs(tree) == []
    tree.add(tree.root, Step((4,), "d", end=EndReason.END_OF_TEXT)).reward = 0.0
    assert ids(path_pairs(tree)) == [(1, 4)]
