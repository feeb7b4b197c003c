"""Rankings, and pairs by advantage, branch, length, visits and foresight: what is compared with what."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.recipes import parse_recipe
from gradatim.search.decisions import SIMULATED
from gradatim.supervision import (
    AdvantagePairs,
    ReferenceBranches,
    ShorterSolutions,
    SiblingLists,
    SiblingPairs,
    SolutionLists,
    SolutionPairs,
    Term,
    has_value,
    ranked_rows,
)
from gradatim.supervision.pairing import spread_over
from gradatim.supervision.values import value_before
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from gradatim.values.foresight import Foresight
from small_runs import small_content
from supervision_trees import VALUE, valued_trees

NO_CONTEXT: Any = None


def ids(terms: Iterable[Term]) -> list[tuple[int, ...]]:
    return [tuple(end.id for end in term.ends) for term in terms]


def family(values: list[float]) -> Tree:
    tree = Tree(Problem("p", "x"))
    for token, value in enumerate(values):
        tree.add(tree.root, Step((token,), f"{token}\n")).scores[VALUE] = value
    return tree


def solved(*paths: tuple[str, float | None]) -> Tree:
    """Solutions of one-letter steps that share their beginnings, each with its reward."""
    tree = Tree(Problem("p", "x"))
    for letters, reward in paths:
        node = tree.root
        for place, letter in enumerate(letters):
            end = EndReason.BOUNDARY if place < len(letters) - 1 else EndReason.END_OF_TEXT
            node = tree.add(node, Step((ord(letter),), letter, (-0.5,), end))
        node.reward = reward
    return tree


def named(term: Term) -> tuple[str, ...]:
    return tuple(end.text for end in term.ends)


def value(tree: Tree, **values: float) -> None:
    """Give steps values by the text of their paths."""
    for node in tree.nodes:
        if (key := node.text or "root") in values:
            node.scores[VALUE] = values[key]


def test_sibling_lists_by_hand() -> None:
    tree = family([0.5, 1.0, 0.0, 1.0, 0.25])
    (term,) = SiblingLists(value=VALUE)(tree)
    assert ids([term]) == [(2, 4, 1, 5, 3)]
    assert term.targets == (1.0, 1.0, 0.5, 0.25, 0.0)
    assert ids(SiblingLists(value=VALUE, max_length=2)(tree)) == [(2, 3)]
    assert ids(SiblingLists(value=VALUE, max_length=3)(tree)) == [(2, 1, 3)]
    assert list(SiblingLists(value=VALUE)(family([0.5, 0.5]))) == []
    assert list(SiblingLists(value=VALUE, min_gap=0.5)(family([0.5, 0.75]))) == []
    tree.nodes[2].counts[VALUE] = tree.nodes[3].counts[VALUE] = 2
    assert list(SiblingLists(value=VALUE, confident=True)(tree)) == [], "two solutions each are no proof"
    assert ranked_rows(SiblingLists(value=VALUE, max_length=2)(tree)) == [
        {"prompt": "x", "completions": ["1\n", "2\n"], "scores": [1.0, 0.0]}
    ]


@given(tree=valued_trees(), length=st.none() | st.integers(2, 4), min_gap=st.sampled_from([0.0, 0.5]))
def test_sibling_lists_of_any_tree(tree: Tree, length: int | None, min_gap: float) -> None:
    found = {term.ends[0].parent: term for term in SiblingLists(value=VALUE, max_length=length, min_gap=min_gap)(tree)}
    pairs = {term.ends[0].parent: term for term in SiblingPairs(value=VALUE, min_gap=min_gap)(tree)}
    assert found.keys() == pairs.keys(), "what can be paired can be ranked"
    for parent, term in found.items():
        assert parent is not None
        values = sorted((n.scores[VALUE] for n in parent.children if has_value(n, VALUE)), reverse=True)
        assert list(term.targets) == sorted(term.targets, reverse=True)
        assert (term.targets[0], term.targets[-1]) == (values[0], values[-1]) == pairs[parent].targets
        assert len(term.ends) == len(set(term.ends)) == min(len(values), length or len(values))


@given(st.integers(2, 12), st.integers(2, 12))
def test_what_is_spread_keeps_the_ends_and_the_order(size: int, count: int) -> None:
    kept = spread_over(range(size), count)
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1], len(kept)) == (0, size - 1, min(size, count))


def test_solution_lists_put_right_ones_first_and_weigh_what_changed_the_value() -> None:
    tree = solved(("ab", 1.0), ("ac", 0.0), ("d", 0.0), ("e", None))
    value(tree, root=0.25, a=0.5, ab=1.0, ac=0.0, d=0.0)
    (term,) = SolutionLists()(tree)
    assert named(term) == ("ab", "ac", "d")
    assert term.targets == (0.5 + 0.375, 0.125, 0.0)
    assert [group.weights for group in term.groups] == [(), (), ()]
    (weighted,) = SolutionLists(emphasis=2.0)(tree)
    assert [group.weights for group in weighted.groups] == [(1.5, 2.0), (1.5, 2.0), (1.5,)]
    (by_outcome,) = SolutionLists(value=None, emphasis=2.0)(tree)
    assert by_outcome.targets == (1.0, 0.0, 0.0)
    assert [group.weights for group in by_outcome.groups] == [(), (), ()]
    del tree.nodes[1].scores[VALUE]
    assert list(SolutionLists()(tree)) == [], "of the solutions that are left none is better"
    (row,) = ranked_rows([by_outcome])
    assert row == {"prompt": "x", "completions": ["ab", "ac", "d"], "scores": [1.0, 0.0, 0.0]}


def test_solution_pairs_may_rate_every_step() -> None:
    tree = solved(("ab", 1.0), ("ac", 0.0), ("d", 0.0))
    value(tree, a=0.5, ab=1.0, ac=0.25)
    rated = SolutionPairs(rated_by=VALUE)
    assert rated.has_step_targets
    assert not SolutionPairs().has_step_targets
    (term,) = rated(tree)
    assert named(term) == ("ab", "ac"), "the other solution has a step that was not rated"
    assert [group.targets for group in term.groups] == [(0.5, 1.0), (0.5, 0.25)]
    assert len(list(SolutionPairs()(tree))) == 2


def test_advantage_pairs_reject_the_first_step_that_lost() -> None:
    tree = solved(("abx", 0.0), ("aby", 0.0), ("ac", 1.0), ("ad", 0.0), ("z", 0.0))
    value(tree, root=0.4, a=0.6, ab=0.3, abx=0.0, aby=0.0, ac=1.0, ad=0.0, z=0.4)
    assert [named(term) for term in AdvantagePairs()(tree)] == [("ac", "ab"), ("ac", "ad")]
    (first, _) = AdvantagePairs()(tree)
    assert first.targets == (1.0, 0.3), "values of siblings differ as their advantages do"
    assert [named(term) for term in AdvantagePairs(min_loss=0.5)(tree)] == [("ac", "ad")], "abx lost less than that"
    value(tree, root=1.0)
    assert list(AdvantagePairs()(tree)) == [], "the first step lost, and none in its place gained"


@given(tree=valued_trees(max_nodes=25))
def test_advantage_pairs_of_any_tree(tree: Tree) -> None:
    def lost(node: Node) -> bool:
        before = value_before(node, VALUE)
        return before is not None and has_value(node, VALUE) and node.scores[VALUE] < before

    pairs = list(AdvantagePairs(value=VALUE)(tree))
    for chosen, rejected in (term.ends for term in pairs):
        assert chosen.parent is rejected.parent is not None
        assert lost(rejected)
        assert not any(lost(before) for before in rejected.path()[:-1])
        assert chosen.scores[VALUE] > (value_before(chosen, VALUE) or 0)
        assert any(leaf.correct is False for leaf in rejected.leaves())
    assert len({term.ends[1] for term in pairs}) == len(pairs)


def test_reference_branches_part_at_each_step_of_the_first_right_path() -> None:
    tree = solved(("w", 0.0), ("abc", 1.0), ("abd", 0.0), ("ax", 0.0), ("ay", 1.0), ("bz", 0.0), ("q", 1.0))
    found = [named(term) for term in ReferenceBranches(max_per_step=None)(tree)]
    at_prompt = {(right, wrong) for right in ("abc", "ay", "q") for wrong in ("w", "abd", "ax", "bz")}
    at_prompt -= {("abc", "abd"), ("abc", "ax"), ("ay", "abd"), ("ay", "ax")}
    assert set(found[: len(at_prompt)]) == at_prompt
    assert set(found[len(at_prompt) : -1]) == {("abc", "ax"), ("ay", "abd"), ("ay", "ax")}
    assert found[-1] == ("abc", "abd")
    assert len(list(ReferenceBranches(max_per_step=1)(tree))) == 3
    assert list(ReferenceBranches()(solved(("a", 0.0)))) == []


def test_shorter_solutions_by_hand() -> None:
    tree = solved(("abcde", 1.0), ("op", 1.0), ("x", 0.0), ("abz", 1.0), ("efgh", None))
    pairs = list(ShorterSolutions()(tree))
    assert [named(term) for term in pairs] == [("op", "abcde"), ("op", "abz")]
    assert [term.targets for term in pairs] == [(pytest.approx(0.6), 0.0), (pytest.approx(1 / 3), 0.0)]
    assert [named(term) for term in ShorterSolutions(min_saved=0.5, unit="steps")(tree)] == [("op", "abcde")]
    assert len(list(ShorterSolutions(max_pairs=1)(tree))) == 1
    assert list(ShorterSolutions()(solved(("x", 0.0)))) == []
    text = Tree(Problem("p", "x"))
    for words in ("long and right", "right"):
        text.add(text.root, Step((), words, end=EndReason.END_OF_TEXT)).reward = 1.0
    assert [named(term) for term in ShorterSolutions()(text)] == [("right", "long and right")]


def test_pairs_are_smoothed_by_visits() -> None:
    tree = family([1.0, 0.5, 0.0])
    for node, visits in zip(tree.nodes[1:], (6, 2, 8), strict=True):
        node.counts["mcts"] = visits
    smoothed = SiblingPairs(value=VALUE, pairing="all", visits="mcts")
    assert smoothed.smooths_labels
    assert [(*end, term.label_smoothing) for end, term in zip(ids(smoothed(tree)), smoothed(tree), strict=True)] == [
        (1, 3, 0.5),  # more visits of the rejected one say nothing more than nothing
        (1, 2, 0.25),
        (2, 3, 0.5),
    ]
    assert all(term.label_smoothing == 0.5 for term in SiblingPairs(value=VALUE, visits="uct")(tree))
    assert all(term.label_smoothing == 0 for term in SiblingPairs(value=VALUE)(tree))
    content = small_content(objective={"data": [{"name": "sibling_pairs", "visits": "mtcs"}]})
    with pytest.raises(GradatimError, match="learns from 'mtcs', which nothing writes to the trees"):
        parse_recipe(content, "small")


def test_the_best_may_be_paired_with_any_other() -> None:
    tree = family([0.5, 1.0, 0.0, 0.75])
    others = set()
    for seed in range(20):
        tree.seed = seed
        ((best, other),) = ids(SiblingPairs(value=VALUE, pairing="best_other")(tree))
        assert best == 2
        others.add(other)
        assert ids(SiblingPairs(value=VALUE, pairing="best_other")(tree)) == [(2, other)]
    assert others == {1, 3, 4}


def test_foresight_is_the_mean_likelihood_of_what_follows() -> None:
    tree = Tree(Problem("p", "x"))

    def add(parent: Node, token: int, *likely: float, end: EndReason = EndReason.BOUNDARY) -> Node:
        return tree.add(parent, Step((token,) * len(likely), str(token), likely, end))

    first, second = add(tree.root, 1, -1.0), add(tree.root, 2, -3.0)
    then = add(first, 3, -0.5, -0.1)
    end, other = (add(then, token, likely, end=EndReason.END_OF_TEXT) for token, likely in ((4, -0.6), (5, -0.2)))
    tree.add(then, other.step)  # drawn twice
    cut = add(second, 6, -0.2, end=EndReason.BUDGET)
    open_end, pruned = add(second, 7, -0.4), add(second, 8, -9.0)
    open_end.notes[SIMULATED] = True
    asyncio.run(Foresight(key="foresight")(tree, NO_CONTEXT))
    assert {node.id: node.scores["foresight"] for node in tree.nodes if "foresight" in node.scores} == pytest.approx(
        {
            first.id: ((-0.5 - 0.1 - 0.6) / 3 + 2 * (-0.5 - 0.1 - 0.2) / 3) / 3,
            then.id: (-0.6 - 0.2 * 2) / 3,
            end.id: -0.6,
            other.id: -0.2,
            second.id: -0.4,
        }
    )
    assert all("foresight" not in node.scores for node in (cut, open_end, pruned, tree.root))
    assert first.counts["foresight"] == 3


def test_random_trees_agree_with_brute_force_on_reference_branches() -> None:
    source = random.Random(3)
    for _ in range(30):
        paths = {"".join(source.choices("abc", k=source.randint(1, 3))): float(source.random() < 0.5) for _ in range(8)}
        whole = [path for path in paths if not any(other != path and other.startswith(path) for other in paths)]
        tree = solved(*((path, paths[path]) for path in whole))
        right = [leaf.text for leaf in tree.solutions() if leaf.correct]
        expected = set()
        for depth in range(len(right[0]) if right else 0):
            for one in right:
                for other in (path for path in whole if not paths[path]):
                    same = one[:depth] == other[:depth] == right[0][:depth]
                    if same and len(one) > depth < len(other) and one[depth] != other[depth]:
                        expected.add((one, other))
        assert {named(term) for term in ReferenceBranches(max_per_step=None)(tree)} == expected
