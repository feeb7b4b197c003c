"""Preference pairs: what is compared with what, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import product
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from gradatim.supervision import (
    FirstErrorPairs,
    SiblingPairs,
    SolutionPairs,
    Term,
    has_value,
    margin,
    pair,
)
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from supervision_trees import VALUE, valued_trees

Mode = Literal["best_worst", "all"]


def family(values: list[float]) -> Tree:
    tree = Tree(Problem("p", "x"))
    for token, value in enumerate(values):
        tree.add(tree.root, Step((token,), f"{token}\n")).scores[VALUE] = value
    return tree


def ids(pairs: Iterable[Term]) -> list[tuple[int, int]]:
    return [(chosen.id, rejected.id) for chosen, rejected in (term.ends for term in pairs)]


def siblings(tree: Tree, **options: Any) -> list[Term]:
    return list(SiblingPairs(value=VALUE, **options)(tree))


def first_errors(tree: Tree, **options: Any) -> list[Term]:
    return list(FirstErrorPairs(value=VALUE, **options)(tree))


def solutions(tree: Tree, max_pairs: int | None = None) -> list[Term]:
    return list(SolutionPairs(max_pairs=max_pairs)(tree))


def test_best_against_worst_by_hand() -> None:
    tree = family([0.5, 1.0, 0.0, 1.0, 0.0])
    assert siblings(tree) == [pair(tree.nodes[2], tree.nodes[3], (1.0, 0.0))]
    assert siblings(family([0.5, 0.75]), min_gap=0.5) == []
    assert ids(siblings(family([0.25, 0.75]), min_gap=0.5)) == [(2, 1)]
    assert siblings(family([0.5, 0.5])) == []
    assert siblings(family([0.5])) == []


def test_all_pairs_come_widest_gap_first_and_can_be_bounded() -> None:
    tree = family([0.5, 1.0, 0.0])
    assert ids(siblings(tree, pairing="all")) == [(2, 3), (2, 1), (1, 3)]
    assert ids(siblings(tree, pairing="all", max_per_parent=2)) == [(2, 3), (2, 1)]
    assert ids(siblings(tree, pairing="all", min_gap=0.6)) == [(2, 3)]


@given(
    tree=valued_trees(),
    min_gap=st.sampled_from([0.0, 0.25, 0.5]),
    mode=st.sampled_from(["best_worst", "all"]),
    bound=st.sampled_from([None, 1, 2]),
    min_count=st.integers(1, 4),
)
def test_sibling_pairs_of_any_tree(tree: Tree, min_gap: float, mode: Mode, bound: int | None, min_count: int) -> None:
    def pairs_of(grown: Tree) -> list[Term]:
        return siblings(grown, min_gap=min_gap, pairing=mode, max_per_parent=bound, min_count=min_count)

    pairs = pairs_of(tree)
    for term in pairs:
        chosen, rejected = term.ends
        assert chosen.parent is rejected.parent is not None
        assert term.targets == (chosen.scores[VALUE], rejected.scores[VALUE])
        assert margin(term) > 0
        assert margin(term) >= min_gap
        assert has_value(chosen, VALUE, min_count)
        assert has_value(rejected, VALUE, min_count)
    assert len(set(ids(pairs))) == len(pairs)
    assert ids(pairs) == ids(pairs_of(Tree.from_json(tree.to_json())))
    order = [(parent_id(term), -margin(term)) for term in pairs]
    assert order == sorted(order)
    for parent in tree.nodes:
        values = [child.scores[VALUE] for child in parent.children if has_value(child, VALUE, min_count)]
        gaps = [one - other for one, other in product(values, values) if one - other >= max(min_gap, 1e-9)]
        found = [margin(term) for term in pairs if term.ends[0].parent is parent]
        expected = sorted(gaps, reverse=True)[: 1 if mode == "best_worst" else bound]
        assert found == expected


def parent_id(term: Term) -> int:
    assert term.ends[0].parent is not None
    return term.ends[0].parent.id


def test_first_error_pairs_by_hand() -> None:
    tree = family([0.5, 0.0, 0.75, 0.0])
    assert ids(first_errors(tree)) == [(3, 2), (3, 4)]
    wrong = tree.nodes[2]
    for token, value in ((8, 1.0), (9, 0.0)):  # after a wrong step nothing is a first error
        tree.add(wrong, Step((token,), "x")).scores[VALUE] = value
    assert ids(first_errors(tree)) == [(3, 2), (3, 4)]
    right = tree.nodes[1]
    for token, value in ((8, 1.0), (9, 0.0)):
        tree.add(right, Step((token,), "x")).scores[VALUE] = value
    assert ids(first_errors(tree)) == [(3, 2), (3, 4), (7, 8)]
    assert first_errors(family([0.0, 0.0])) == []


@given(tree=valued_trees(), threshold=st.sampled_from([0.0, 0.25, 0.5]))
def test_first_error_pairs_rejects_first_errors_only(tree: Tree, threshold: float) -> None:
    def good(node: Node) -> bool:
        return has_value(node, VALUE) and node.scores[VALUE] > threshold

    pairs = first_errors(tree, threshold=threshold)
    for chosen, rejected in (term.ends for term in pairs):
        assert chosen.parent is rejected.parent
        assert all(good(node) for node in chosen.path()[1:])
        assert rejected.scores[VALUE] <= threshold
    expected = {
        node
        for node in tree.nodes[1:]
        if has_value(node, VALUE)
        and not good(node)
        and all(good(before) for before in node.path()[1:-1])
        and any(good(other) for other in (node.parent.children if node.parent else ()))
    }
    assert {term.ends[1] for term in pairs} == expected
    assert len(pairs) == len(expected)


@given(tree=valued_trees(max_nodes=25), bound=st.sampled_from([None, 1, 3, 5]))
def test_solution_pairs_use_solutions_evenly(tree: Tree, bound: int | None) -> None:
    right = [leaf for leaf in tree.solutions() if leaf.reward == 1.0]
    wrong = [leaf for leaf in tree.solutions() if leaf.reward in (0.0, 0.5)]
    pairs = solutions(tree, bound)
    everything = len(right) * len(wrong)
    assert len(set(ids(pairs))) == len(pairs) == (everything if bound is None else min(bound, everything))
    for side, leaves in enumerate((right, wrong)):
        used = Counter(term.ends[side] for term in pairs)
        assert set(used) <= set(leaves)
        if pairs:
            assert max(used.values()) - min(used[leaf] for leaf in leaves) <= 1
    assert all(term.targets == tuple(leaf.reward or 0 for leaf in term.ends) for term in pairs)
    assert all(group.nodes == tuple(group.nodes[-1].path()[1:]) for term in pairs for group in term.groups)


def test_solution_pairs_cover_every_combination_of_equally_many() -> None:
    tree = Tree(Problem("p", "x"))
    for token, reward in enumerate((1.0, 1.0, 0.0, 0.0, 0.0, 0.0)):
        tree.add(tree.root, Step((token,), "a", end=EndReason.END_OF_TEXT)).reward = reward
    assert ids(solutions(tree)) == [(1, 3), (2, 4), (1, 5), (2, 6), (1, 4), (2, 5), (1, 6), (2, 3)]


def test_solution_pairs_pass_over_what_was_cut_off_or_not_graded() -> None:
    tree = Tree(Problem("p", "x"))
    tree.add(tree.root, Step((1,), "a", end=EndReason.END_OF_TEXT)).reward = 1.0
    tree.add(tree.root, Step((2,), "b", end=EndReason.LENGTH)).reward = 0.0
    tree.add(tree.root, Step((3,), "c", end=EndReason.END_OF_TEXT))
    assert solutions(tree) == []
    tree.add(tree.root, Step((4,), "d", end=EndReason.END_OF_TEXT)).reward = 0.0
    assert ids(solutions(tree)) == [(1, 4)]
