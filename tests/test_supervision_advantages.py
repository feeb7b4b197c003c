"""Advantages of steps: by hand, by slow loops over solutions, and what each construction is in its limits."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.supervision import (
    Advantages,
    AnchorAdvantages,
    DepthAdvantages,
    GeneralizedAdvantages,
    SiblingAdvantages,
    SubtreeAdvantages,
    Term,
    TrajectoryAdvantages,
    ValueAdvantages,
    relative,
)
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from gradatim.values.backup import back_up_values
from supervision_trees import valued_trees

OF_SOLUTIONS: list[Advantages] = [
    TrajectoryAdvantages(),
    TrajectoryAdvantages(returns="whole"),
    SubtreeAdvantages(),
    AnchorAdvantages(),
    GeneralizedAdvantages(),
]
OF_STEPS: list[Advantages] = [SiblingAdvantages(), DepthAdvantages(), ValueAdvantages(reward_weight=0.5)]


@st.composite
def graded_trees(draw: st.DrawFn) -> Tree:
    """A graded tree with backed-up values and a reward of each step, whose steps were drawn up to three times."""
    tree = draw(valued_trees())
    for node in tree.nodes[1:]:
        node.multiplicity = draw(st.integers(1, 3))
        node.scores["own"] = draw(st.integers(-2, 2)) / 4
        node.reward = None
        if not node.open:
            node.reward = draw(st.sampled_from([0.0, 1.0])) if node.finished else 0.0
    back_up_values(tree)
    return tree


def add(parent: Node, text: str, reward: float | None = None, *, count: int = 1, **scores: float) -> Node:
    end = EndReason.BOUNDARY if reward is None else EndReason.END_OF_TEXT
    node = parent.tree.add(parent, Step((len(parent.tree),), text, end=end))
    node.reward, node.scores, node.multiplicity = reward, dict(scores), count
    return node


def new_tree() -> Tree:
    return Tree(Problem("p", "x\n"))


def by_hand() -> Tree:
    """a-b right (drawn twice), a-c wrong, d wrong, e right; values backed up: a 2/3."""
    tree = new_tree()
    first = add(tree.root, "a", count=3)
    add(first, "b", 1.0, count=2)
    add(first, "c", 0.0)
    add(tree.root, "d", 0.0)
    add(tree.root, "e", 1.0)
    back_up_values(tree)
    return tree


def given_steps(terms: list[Term]) -> dict[str, list[float]]:
    """The advantages of each term, by the text of its steps."""
    return {
        "".join(node.step.text for node in term.groups[0].nodes): list(term.groups[0].targets or term.targets)
        for term in terms
    }


def solutions(tree: Tree) -> list[list[Node]]:
    ended = [leaf for leaf in tree.leaves() if not leaf.is_root and not leaf.open]
    return [leaf.path()[1:] for leaf in ended if leaf.step.end is not EndReason.BUDGET]


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(1, 3)), min_size=1, max_size=6))
def test_relative_is_what_the_draws_one_by_one_are(rows: list[tuple[int, int]]) -> None:
    values, counts = [value / 4 for value, _ in rows], [count for _, count in rows]
    draws = [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
    for how in ("std", "mean", "leave_one_out", "none"):
        found = relative(values, counts, how)
        for value, advantage in zip(values, found, strict=True):
            if len(set(draws)) == 1:
                expected = 0.0
            elif how == "none":
                expected = value
            elif how == "leave_one_out":
                expected = value - (sum(draws) - value) / (len(draws) - 1)
            else:
                expected = (value - statistics.fmean(draws)) / (statistics.stdev(draws) if how == "std" else 1.0)
            assert advantage == pytest.approx(expected)


def test_what_rounding_leaves_is_no_difference() -> None:
    """It would be blown up to whole standard deviations."""
    for values in ([1e-17, 0.0], [0.1 + 0.2, 0.3], [1e12, 1e12 + 1e-4]):
        assert relative(values, [1, 1]) == [0.0, 0.0]


def test_solutions_by_hand() -> None:
    """Five draws, three of them right: mean 0.6, standard deviation sqrt(0.3)."""
    right, wrong = 0.4 / math.sqrt(0.3), -0.6 / math.sqrt(0.3)
    terms = TrajectoryAdvantages()(by_hand())
    assert [term.weight for term in terms] == [2.0, 1.0, 1.0, 1.0]
    assert [term.targets for term in terms] == [(1.0,), (0.0,), (0.0,), (1.0,)]
    assert given_steps(terms) == {
        "ab": pytest.approx([right, right]), "ac": pytest.approx([wrong, wrong]),
        "d": pytest.approx([wrong]), "e": pytest.approx([right]),
    }  # fmt: skip
    alone = given_steps(TrajectoryAdvantages(normalize="leave_one_out")(by_hand()))
    assert alone["ab"] == pytest.approx([0.5, 0.5])
    assert alone["d"] == pytest.approx([-0.75])
    assert given_steps(TrajectoryAdvantages(normalize="none", reward_weight=2.0)(by_hand()))["ab"] == [2.0, 2.0]


def test_siblings_subtrees_and_depths_by_hand() -> None:
    tree = by_hand()
    mean, deviation = 0.6, math.sqrt((3 * (2 / 3 - 0.6) ** 2 + 0.36 + 0.16) / 4)
    siblings = given_steps(list(SiblingAdvantages()(tree)))
    assert siblings == {
        "a": [pytest.approx((2 / 3 - mean) / deviation)], "d": [pytest.approx(-mean / deviation)],
        "e": [pytest.approx(0.4 / deviation)], "b": [pytest.approx(1 / 3 / math.sqrt(1 / 3))],
        "c": [pytest.approx(-2 / 3 / math.sqrt(1 / 3))],
    }  # fmt: skip
    assert {term.ends[0].step.text: term.weight for term in SiblingAdvantages()(tree)}["a"] == 3.0
    assert given_steps(list(DepthAdvantages()(tree))) == siblings, "no depth has steps of different prefixes"
    subtrees = given_steps(SubtreeAdvantages(normalize="mean", intra_weight=0.5)(tree))
    assert subtrees["ab"] == pytest.approx([0.4 + 0.5 / 3] * 2)
    assert subtrees["ac"] == pytest.approx([-0.6 - 0.5 * 2 / 3] * 2)
    assert subtrees["d"] == pytest.approx([-0.6]), "alone in its subtree"
    add(add(tree.root, "f"), "g", 1.0, value=1.0)
    depths = given_steps(list(DepthAdvantages(normalize="mean")(tree)))
    assert depths["b"] == pytest.approx([0.25])
    assert depths["g"] == pytest.approx([0.25]), "compared with steps after another prefix"


@given(tree=graded_trees(), weights=st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.5, 1.0])))
def test_rewards_of_steps_count_as_in_process_supervision(tree: Tree, weights: tuple[float, float]) -> None:
    """GRPO with process supervision, written out over single draws."""
    paths = solutions(tree)
    options: dict[str, Any] = {"step_reward": "own", "reward_weight": weights[0], "step_reward_weight": weights[1]}
    found = given_steps(TrajectoryAdvantages(**options)(tree))
    draws = [path for path in paths for _ in range(path[-1].multiplicity)]
    steps = [node.scores["own"] for path in draws for node in path]
    outcomes = [float(path[-1].reward or 0.0) for path in draws]
    expected = {}
    for path in paths:
        outcome = statistics_of(outcomes, float(path[-1].reward or 0.0))
        own = [statistics_of(steps, node.scores["own"]) for node in path]
        key = "".join(node.step.text for node in path)
        expected[key] = [weights[0] * outcome + weights[1] * sum(own[place:]) for place in range(len(path))]
    if any(abs(each) > 1e-9 for given in expected.values() for each in given):
        assert found == {key: pytest.approx(given, abs=1e-9) for key, given in expected.items()}
    whole = given_steps(TrajectoryAdvantages(**options, returns="whole")(tree))
    sums = [weights[0] * float(p[-1].reward or 0.0) + weights[1] * sum(n.scores["own"] for n in p) for p in draws]
    for path, total in ((path, sums[draws.index(path)]) for path in paths):
        if whole:
            key = "".join(node.step.text for node in path)
            assert whole[key] == pytest.approx([statistics_of(sums, total)] * len(path), abs=1e-9)


def statistics_of(values: list[float], value: float) -> float:
    """How many standard deviations above the mean a value is; 0 where all are alike."""
    if max(values) - min(values) < 1e-9:
        return 0.0
    return (value - statistics.fmean(values)) / statistics.stdev(values)


@given(tree=graded_trees(), discount=st.sampled_from([1.0, 0.9]), trace=st.sampled_from([0.0, 0.5, 1.0]))
def test_generalized_advantages_are_sums_of_differences(tree: Tree, discount: float, trace: float) -> None:
    options: dict[str, Any] = {"discount": discount, "trace": trace, "step_reward": "own", "step_reward_weight": 0.5}
    found = given_steps(GeneralizedAdvantages(**options)(tree))
    for path in solutions(tree):
        key = "".join(node.step.text for node in path)
        if not found:
            continue
        values = [value_of(node.parent) for node in path if node.parent is not None] + [0.0]
        rewards = [0.5 * node.scores["own"] for node in path]
        rewards[-1] += float(path[-1].reward or 0.0)
        deltas = [r + discount * later - now for r, now, later in zip(rewards, values, values[1:], strict=False)]
        expected = [
            sum((discount * trace) ** (k - t) * deltas[k] for k in range(t, len(path))) for t in range(len(path))
        ]
        assert found[key] == pytest.approx(expected, abs=1e-9)
        later = [sum(discount ** (k - t) * rewards[k] for k in range(t, len(path))) for t in range(len(path))]
        if trace == 1.0:  # what was earned, less what was expected
            assert found[key] == pytest.approx([g - v for g, v in zip(later, values, strict=False)], abs=1e-9)
        if trace == 0.0:
            assert found[key] == pytest.approx(deltas, abs=1e-9)


def value_of(node: Node) -> float:
    return node.scores["value"]


@given(tree=graded_trees())
def test_differences_of_backed_up_values_are_generalized_advantages_without_a_trace(tree: Tree) -> None:
    steps = {term.ends[0]: term.targets[0] for term in ValueAdvantages()(tree)}
    for term in GeneralizedAdvantages(trace=0.0)(tree):
        assert list(term.groups[0].targets) == pytest.approx([steps[node] for node in term.groups[0].nodes], abs=1e-9)


def test_value_advantages_by_hand() -> None:
    """Progress of a prover beside the outcome; the prompt's value is that of its first steps."""
    tree = by_hand()
    for node, value in zip(tree.nodes[1:], (0.5, 1.0, 0.25, 0.1, 0.8), strict=True):
        node.scores["prover"] = value
        node.scores["own"] = 0.1
    start = (3 * 0.5 + 0.1 + 0.8) / 5
    plain = given_steps(ValueAdvantages(value="prover")(tree))
    assert plain == {
        "a": [pytest.approx(0.5 - start)], "b": [pytest.approx(0.5)], "c": [pytest.approx(-0.25)],
        "d": [pytest.approx(0.1 - start)], "e": [pytest.approx(0.8 - start)],
    }  # fmt: skip
    both = given_steps(
        ValueAdvantages(value="prover", value_weight=2.0, reward_weight=0.5, normalize="mean", step_reward="own")(tree)
    )
    assert both["a"] == [pytest.approx(2 * (0.5 - start) + 0.5 * (2 / 3 - 0.6) + 0.1)]
    assert both["b"] == [pytest.approx(1.0 + 0.5 * 0.4 + 0.1)]
    tree.root.scores["prover"] = 0.4
    tree.root.counts["prover"] = 1
    assert given_steps(ValueAdvantages(value="prover")(tree))["a"] == [pytest.approx(0.1)]


def test_anchors_are_equal_prefixes_and_equal_states() -> None:
    """a and b leave the same numbers; a-c and b-d are then compared with each other, and with b-e."""
    tree = new_tree()
    left, right = add(tree.root, " 1 + 2 = 3 | 3 4\n"), add(tree.root, " 2 + 1 = 3 | 3 4\n")
    add(left, "c", 1.0)
    add(right, "d", 0.0)
    add(right, "e", 0.0)
    options: dict[str, Any] = {"normalize": "mean", "step_weight": 0.5, "discount": 0.5}
    third = 1 / 3
    episodes = {"c": 2 * third, "d": -third, "e": -third}
    first = {"c": 0.5 - 0.5 * third, "d": -0.5 * third, "e": -0.5 * third}  # one step before the end: halved
    apart = {"c": 0.0, "d": 0.0, "e": 0.0}  # c alone after its prefix, d and e alike
    equal = {"c": 2 * third, "d": -third, "e": -third}
    for state, second in ((None, apart), (r"\|(.*)", equal), (r"nothing", apart)):
        for term in AnchorAdvantages(state=state, **options)(tree):
            text = term.ends[0].step.text
            expected = [episodes[text] + 0.5 * first[text], episodes[text] + 0.5 * second[text]]
            assert list(term.groups[0].targets) == pytest.approx(expected)
    with pytest.raises(GradatimError, match="no regular expression"):
        AnchorAdvantages(state="(")


@given(tree=graded_trees())
def test_in_their_limits_they_are_advantages_of_whole_solutions(tree: Tree) -> None:
    expected = given_steps(TrajectoryAdvantages(returns="whole", step_reward="own")(tree))
    assert given_steps(AnchorAdvantages(step_weight=0.0, step_reward="own")(tree)) == expected
    assert given_steps(SubtreeAdvantages(intra_weight=0.0, step_reward="own")(tree)) == expected
    siblings = given_steps([each for each in SiblingAdvantages()(tree) if each.ends[0].depth == 1])
    depths = given_steps([each for each in DepthAdvantages()(tree) if each.ends[0].depth == 1])
    assert depths == siblings


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0.0, 1.0]), st.integers(1, 3)), min_size=1, max_size=5))
def test_where_only_the_prompt_branches_siblings_are_whole_solutions(rows: list[tuple[int, float, int]]) -> None:
    tree = new_tree()
    for length, reward, count in rows:
        node = tree.root
        for place in range(length):
            node = add(node, f"{len(tree)} ", reward if place == length - 1 else None, count=count)
    back_up_values(tree)
    whole = {term.groups[0].nodes[0]: term.groups[0].targets[0] for term in TrajectoryAdvantages()(tree)}
    assert {term.ends[0]: term.targets[0] for term in SiblingAdvantages()(tree)} == pytest.approx(whole)


@given(tree=graded_trees())
def test_what_is_drawn_more_often_weighs_more_and_groups_are_balanced(tree: Tree) -> None:
    for construction in (*OF_SOLUTIONS[:3], *OF_STEPS[:2]):
        terms = list(construction(tree))
        assert [term.weight for term in terms] == [term.ends[0].multiplicity for term in terms]
        first = [term.weight * (term.groups[0].targets or term.targets)[0] for term in terms]
        assert sum(first) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("construction", [*OF_SOLUTIONS, *OF_STEPS], ids=str)
def test_without_a_group_or_a_difference_there_is_nothing(construction: Advantages) -> None:
    alone = new_tree()
    add(add(alone.root, "a"), "b", 1.0)
    alike = by_hand()
    for leaf in alike.leaves():
        leaf.reward = 1.0
    undone = new_tree()
    add(undone.root, "a")
    undone.add(undone.root, Step((9,), "b", end=EndReason.BUDGET)).reward = 0.0
    unjudged = new_tree()
    for text in "ab":
        add(unjudged.root, text, 1.0).reward = None
    for tree in (alone, alike, undone):
        back_up_values(tree)
    for tree in (alone, alike, undone, unjudged, new_tree()):
        assert list(construction(tree)) == []


def test_what_has_no_reward_is_left_out() -> None:
    tree = by_hand()
    tree.nodes[2].scores["own"] = 1.0  # of a-b the last step alone
    for node in tree.nodes[4:]:
        node.scores["own"] = float(node.id)
    assert set(given_steps(TrajectoryAdvantages(step_reward="own")(tree))) == {"d", "e"}
    assert set(given_steps(TrajectoryAdvantages(reward="own")(tree))) == {"ab", "d", "e"}
    cut = tree.add(tree.root, Step((99,), "f", end=EndReason.LENGTH))
    cut.reward = 0.0
    assert given_steps(TrajectoryAdvantages(normalize="mean")(tree))["f"] == [pytest.approx(-0.5)]
    del tree.nodes[1].scores["value"]
    assert set(given_steps(GeneralizedAdvantages()(tree))) == {"d", "e", "f"}, "a solution with an unvalued step"


def test_rewards_on_the_way_count_too() -> None:
    tree = by_hand()
    tree.nodes[1].reward = 0.5  # an environment's
    assert given_steps(TrajectoryAdvantages(normalize="none")(tree))["ab"] == [1.5, 1.5]
    assert given_steps(TrajectoryAdvantages(normalize="none")(tree))["ac"] == [0.5, 0.5]


def test_advantages_are_rows_of_their_steps() -> None:
    tree = by_hand()
    tree.nodes[1].step = Step((1,), "a", observation_text="[seen]")
    row = TrajectoryAdvantages.rows(TrajectoryAdvantages(normalize="none")(tree))[0]
    assert row == {"prompt": "x\n", "completions": ["a[seen]", "b"], "labels": [1.0, 1.0]}
    rows = SiblingAdvantages.rows(SiblingAdvantages(normalize="mean")(tree))
    assert rows[3] == {"prompt": "x\na[seen]", "completions": ["b"], "labels": [pytest.approx(1 / 3)]}
