"""The tree's walks, merging, keys and JSON, against naive computations and one golden file."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradatim import Budget, EndReason, GradatimError, Node, Problem, Step, Tree
from gradatim.budget import Spent
from gradatim.values.backup import back_up_values
from random_trees import steps, trees

GOLDEN = Path(__file__).parent / "golden" / "tree.json"
MANY = 100_000
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def small_tree(*, seed: int = 0) -> Tree:
    """Root 0 with the children 1 and 2; 3 and 4 below 1, 5 below 2, 6 below 1: ids are not in depth-first order."""
    tree = Tree(Problem("p", "Q:"), prompt_tokens=[9], seed=seed)
    for token, parent in enumerate((0, 0, 1, 1, 2, 1), 1):
        tree.add(tree.nodes[parent], Step((token,), f"s{token} ", observation=(token + 10,), observation_text="o "))
    return tree


def golden_tree() -> Tree:
    """The tree of the golden file: one example of everything that the format can hold.

    A prompt and a budget; a step proposed twice; an observation; scores and counts; and a leaf for each way to end.
    """
    problem = Problem("golden-1", "1 + 2 + 3 = ?\n", answer="6", data={"numbers": [1, 2, 3], "source": "made up"})
    tree = Tree(
        problem, prompt_tokens=[1, 2, 3], seed=7, budget=Budget(100, {"policy": Spent(3, 9, 120), "scorer": Spent(12)})
    )
    tree.metadata = {"search": "by hand"}
    first = Step((4, 5), "1 + 2 = 3\n", (-0.5, -0.25), observation=(6,), observation_text="ok\n")
    left = tree.add(tree.root, first, key=tree.draw(tree.root))
    tree.add(tree.root, first, key=tree.draw(tree.root))
    right = tree.add(tree.root, Step((7,), "2 + 3 = 6\n", (-2.0,)), key=tree.draw(tree.root))
    tree.add(left, Step((8, 0), "é = 6", (-0.125, 0.0), EndReason.END_OF_TEXT), key=tree.draw(left))
    tree.add(left, Step((8, 8), "666", (-1.0, -1.5), EndReason.LENGTH))
    tree.add(right, Step((9,), "7", (), EndReason.BUDGET))
    tree.add(right, Step((10,), "1 + 6 = 7\n"))
    tree.nodes[3].reward, tree.nodes[3].answer = 1.0, "6"
    tree.nodes[4].reward = 0.0
    tree.nodes[3].notes = {"verdict": "correct"}
    for node, value, count in zip(tree.nodes, (1 / 3, 0.5, 0.0, 1.0, 0.0, 0.0), (3, 2, 1, 1, 1, 1), strict=False):
        node.scores["value"], node.counts["value"] = value, count
    return tree


def as_lists(tree: Tree) -> list[list[Any]]:
    """Everything that a tree's nodes hold, as plain values."""
    names = ("id", "step", "depth", "scores", "counts", "multiplicity", "draws", "key", "reward", "answer", "notes")
    return [
        [getattr(node, name) for name in names]
        + [node.parent and node.parent.id, [child.id for child in node.children]]
        for node in tree.nodes
    ]


def ids(nodes: Any) -> list[int]:
    return [node.id for node in nodes]


# Walks


def test_walks_have_their_documented_order() -> None:
    tree = small_tree()
    assert ids(tree.root.descendants()) == [0, 1, 3, 4, 6, 2, 5]
    assert ids(tree.nodes[1].descendants()) == [1, 3, 4, 6]
    assert ids(tree.leaves()) == [3, 4, 6, 5]
    assert ids(tree.nodes[5].leaves()) == [5]
    assert ids(tree.nodes[6].path()) == [0, 1, 6]
    assert tree.nodes[6].text == "s1 o s6 o "
    assert tree.root.text == ""
    assert tree.nodes[6].tokens == [9, 1, 11, 6, 16]
    assert [node.depth for node in tree.nodes] == [0, 1, 1, 2, 2, 2, 2]
    assert len(tree) == 7


@few
@given(trees())
def test_parents_come_before_children_and_walks_agree(tree: Tree) -> None:
    def below(node: Node) -> list[Node]:
        return [node] + [each for child in node.children for each in below(child)]

    for node in tree.nodes:
        assert tree.nodes[node.id] is node
        assert node.is_root is (node.id == 0)
        if node.parent is not None:
            assert node.parent.id < node.id
            assert node.depth == node.parent.depth + 1
            assert node in node.parent.children
        assert ids(node.children) == sorted(ids(node.children))
        assert list(node.descendants()) == below(node)
        assert list(node.leaves()) == [each for each in below(node) if each.is_leaf]
        assert node.path() == ([] if node.parent is None else node.parent.path()) + [node]
    assert ids(tree.solutions()) == sorted(leaf.id for leaf in tree.leaves() if leaf.finished)


# Adding


@few
@given(st.lists(steps(), max_size=15))
def test_identical_steps_are_one_node_that_counts_them(proposals: list[Step]) -> None:
    tree = Tree(Problem("p", "q"))

    def place(step: Step) -> tuple[object, ...]:  # text counts only where there are no tokens
        finished = not step.tokens and step.end is EndReason.END_OF_TEXT
        return (step.tokens or step.text, finished)  # what the environment wrote behind it tells no steps apart

    nodes = [tree.add(tree.root, step) for step in proposals]
    assert [place(node.step) for node in nodes] == [place(step) for step in proposals]
    assert {place(node.step): node.multiplicity for node in tree.nodes[1:]} == Counter(map(place, proposals))
    assert tree.root.children == tree.nodes[1:] == list(dict.fromkeys(nodes))


def test_equal_steps_below_other_parents_are_other_nodes_also_after_a_round_trip() -> None:
    tree = Tree(Problem("p", "q"))
    step = Step((1,), "a")
    first = tree.add(tree.root, step)
    assert tree.add(first, step) is not first
    again = Tree.from_json(tree.to_json())
    assert again.add(again.root, step) is again.nodes[1]
    assert [node.multiplicity for node in again.nodes] == [1, 2, 1]
    with pytest.raises(ValueError, match="another tree"):
        tree.add(again.root, step)


def test_a_step_that_was_cut_off_goes_on_once_it_ends_at_a_boundary() -> None:
    tree = Tree(Problem("p", "q"))
    node = tree.add(tree.root, Step((1,), "a", end=EndReason.BUDGET))
    node.reward, node.answer = 0.0, "a"
    node.scores["value"], node.counts["value"], node.notes["verdict"] = 0.0, 1, "cut off"
    tree.add(tree.root, Step((1,), "a", end=EndReason.LENGTH))
    assert (node.step.end, node.reward, node.answer) == (EndReason.BUDGET, 0.0, "a")
    tree.add(tree.root, Step((1,), "a"))
    assert node.open
    assert (node.multiplicity, node.reward, node.answer) == (3, None, None)
    assert not node.scores
    assert not node.counts
    assert not node.notes


def test_a_step_has_as_many_log_probabilities_as_tokens_or_none() -> None:
    assert Step((1, 2), "ab").log_probabilities == ()
    with pytest.raises(ValueError, match="2 tokens but 1 log-probabilities"):
        Step((1, 2), "ab", (-1.0,))
    assert Step((), "ab", (-1.0,)).log_probabilities == (-1.0,)  # of a server's tokens, whose ids are unknown


def test_text_steps_are_told_apart_by_their_text() -> None:
    tree = Tree(Problem("p", "q"))
    first, other = tree.add(tree.root, Step((), "a\n")), tree.add(tree.root, Step((), "b\n"))
    assert first is not other
    again = Tree.from_json(tree.to_json())
    assert again.add(again.root, Step((), "b\n")) is again.nodes[2]
    assert [node.multiplicity for node in again.nodes] == [1, 1, 2]
    finished = tree.add(tree.root, Step((), "b\n", end=EndReason.END_OF_TEXT))
    assert finished is not other, "it ended the solution; the other goes on"


def test_prompt_tokens_are_written_once_and_must_agree() -> None:
    tree = Tree(Problem("p", "the prompt"))
    tree.set_prompt_tokens([1, 2])
    tree.set_prompt_tokens((1, 2))
    assert tree.root.step == Step((1, 2), "the prompt")
    with pytest.raises(GradatimError, match="'p' was grown with another tokenizer or prompt; start a new tree"):
        tree.set_prompt_tokens([1, 3])
    assert tree.root.tokens == [1, 2]


# Keys


@few
@given(trees(), st.integers(0, 2**40))
def test_keys_depend_on_seed_problem_and_draws_alone(tree: Tree, seed: int) -> None:
    def keys(seed: int, problem: Problem, prompt: list[int]) -> list[int]:
        other = Tree(problem, prompt_tokens=prompt, seed=seed, budget=Budget(5))
        for token in range(3):
            other.add(other.root, Step((token + len(prompt),), "x"), key=other.draw(other.root))
        child = other.root.children[1]
        return [node.key for node in other.nodes] + [other.draw(child), other.draw(child)]

    one = keys(seed, tree.problem, [])
    assert one == keys(seed, Problem(tree.problem.id, "another prompt", "another answer"), [1, 2])
    assert all(0 <= key < 2**64 for key in one)
    assert len(set(one)) == len(one)
    assert not set(one) & set(keys(seed + 1, tree.problem, []))
    assert not set(one) & set(keys(seed, Problem(tree.problem.id + "x", ""), []))


def test_a_merged_draw_leaves_the_first_key_and_later_draws_go_on() -> None:
    tree = Tree(Problem("p", "q"), seed=3)
    first = tree.draw(tree.root)
    node = tree.add(tree.root, Step((1,), "a"), key=first)
    second = tree.draw(tree.root)
    assert second != first
    assert tree.add(tree.root, Step((1,), "a"), key=second).key == node.key == first
    assert tree.root.draws == 2
    again = Tree.from_json(tree.to_json())
    assert again.draw(again.root) == tree.draw(tree.root)


# JSON


@few
@given(trees())
def test_the_json_round_trip_is_exact(tree: Tree) -> None:
    again = Tree.from_json(json.loads(json.dumps(tree.to_json())))
    assert as_lists(again) == as_lists(tree)
    assert (again.problem, again.seed, again.metadata) == (tree.problem, tree.seed, tree.metadata)
    assert again.budget == tree.budget
    assert all(node.tree is again for node in again.nodes)
    assert json.dumps(again.to_json()) == json.dumps(tree.to_json())


def test_the_golden_tree_is_written_as_ever_and_read_back() -> None:
    golden = GOLDEN.read_text(encoding="utf-8")
    assert json.dumps(golden_tree().to_json(), indent=1, ensure_ascii=False) + "\n" == golden
    assert as_lists(Tree.from_json(json.loads(golden))) == as_lists(golden_tree())


@pytest.mark.parametrize("value", [None, [], "tree", 3, {}, {"format": 1}, {"format": 2}, {"format": 2, "problem": {}}])
def test_what_is_no_tree_is_refused(value: Any) -> None:
    with pytest.raises(GradatimError, match=r"gradatim tree|this tree has format"):
        Tree.from_json(value)


@pytest.mark.parametrize(("node", "parent"), [(0, 0), (1, None), (1, 1), (1, 5), (2, -1), (2, "1"), (2, 1.0)])
def test_a_node_in_an_impossible_place_is_refused(node: int, parent: Any) -> None:
    value = small_tree().to_json()
    value["nodes"][node]["parent"] = parent
    with pytest.raises(GradatimError, match="not a whole gradatim tree"):
        Tree.from_json(value)


def test_a_tree_without_nodes_is_refused() -> None:
    with pytest.raises(GradatimError, match="no root"):
        Tree.from_json(small_tree().to_json() | {"nodes": []})


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_damage_to_the_json_is_a_clear_error_or_harmless(data: st.DataObject) -> None:
    value = copy.deepcopy(golden_tree().to_json())
    where: Any = value
    while True:
        key = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        if not isinstance(where[key], dict | list) or not where[key] or data.draw(st.booleans()):
            break
        where = where[key]
    damage = data.draw(st.sampled_from(["delete", None, "x", -1, 1.5, [], {}, [[]], True]))
    if damage == "delete":
        del where[key]
    else:
        where[key] = damage
    try:
        tree = Tree.from_json(value)
    except GradatimError:
        return
    assert len(list(tree.root.descendants())) == len(tree) > 0


def test_whether_a_solution_is_right_is_kept_and_told_by_the_reward_in_older_files() -> None:
    tree = Tree(Problem("p", "q"))
    partial, whole, unknown = (tree.add(tree.root, Step((), text, end=EndReason.END_OF_TEXT)) for text in "abc")
    partial.reward, partial.correct = 0.75, False
    whole.reward = 1.0
    assert [node.correct for node in (partial, whole, unknown)] == [False, True, None]
    value = json.loads(json.dumps(tree.to_json()))
    assert [node.get("correct") for node in value["nodes"][1:]] == [False, None, None]
    again = Tree.from_json(value)
    assert [node.correct for node in again.nodes[1:]] == [False, True, None]
    assert again.to_json() == tree.to_json()
    for node in value["nodes"]:
        node.pop("correct", None)  # as files were before
    assert [node.correct for node in Tree.from_json(value).nodes[1:]] == [True, True, None]
    partial.reward = 0.9  # another verdict: the former one is no longer true of it
    assert partial.correct is True


# Size


@pytest.mark.parametrize("shape", ["chain", "star"])
def test_a_hundred_thousand_nodes_are_quick_and_need_no_recursion(shape: str) -> None:
    started = time.process_time()
    tree = Tree(Problem("p", "q"))
    for token in range(1, MANY):
        tree.add(tree.nodes[-1] if shape == "chain" else tree.root, Step((token,), "x"))
    leaf = tree.add(tree.nodes[-1], Step((0,), "x", end=EndReason.END_OF_TEXT))
    leaf.reward = 1.0
    assert sum(1 for _ in tree.root.descendants()) == len(tree) == MANY + 1
    assert sum(1 for _ in tree.leaves()) == (1 if shape == "chain" else MANY - 1)
    assert len(leaf.path()) == leaf.depth + 1 == (MANY + 1 if shape == "chain" else 3)
    assert len(leaf.text) == leaf.depth
    back_up_values(tree)
    assert sum(node.scores.get("value", 0.0) for node in tree.nodes) == leaf.depth + 1
    again = Tree.from_json(tree.to_json())
    assert [node.depth for node in again.nodes] == [node.depth for node in tree.nodes]
    assert time.process_time() - started < 30  # where adding compares with every sibling it takes many minutes
