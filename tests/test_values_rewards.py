"""Rewards that know the length of solutions, the outcome or what a step leads to; and what advantages make of them."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.part import make
from gradatim.recipes import parse_recipe
from gradatim.supervision import TrajectoryAdvantages
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from gradatim.values.base import Values
from gradatim.values.concise_rewards import ConciseRewards
from gradatim.values.length_budget import LengthBudget
from gradatim.values.outcome_calibrated import OutcomeCalibrated
from gradatim.values.scored import Scored
from gradatim.values.step_gains import StepGains
from small_runs import small_content
from test_scorers_wrappers import Given

NO_CONTEXT: Any = None


def write(values: Values, tree: Tree) -> Tree:
    asyncio.run(values(tree, NO_CONTEXT))
    return tree


def add(
    parent: Node, text: str, reward: float | None = None, *, count: int = 1, tokens: int = 1, **scores: float
) -> Node:
    end = EndReason.BOUNDARY if reward is None else EndReason.END_OF_TEXT
    node = parent.tree.add(parent, Step((len(parent.tree),) * tokens, text, end=end))
    node.reward, node.multiplicity = reward, count
    node.scores.update(scores)
    return node


def tree_of(*rewards: float, data: dict[str, Any] | None = None) -> Tree:
    """Solutions of 2, 4, 6, ... tokens: one step of two tokens, then one of the rest."""
    tree = Tree(Problem("p", "x\n", data=data or {}))
    for number, reward in enumerate(rewards):
        first = add(tree.root, f"{number}a", tokens=2) if number else tree.root
        add(first, f"{number}b", reward, tokens=2 * max(1, number))
    return tree


def ends(tree: Tree, key: str) -> list[float | None]:
    return [leaf.scores.get(key) for leaf in tree.leaves()]


def test_length_counts_where_all_are_right_or_where_one_is() -> None:
    assert ends(write(ConciseRewards(), tree_of(1, 1, 1)), "concise") == pytest.approx(
        [1 + 0.5 * 2 / 3, 1 + 0.5 / 3, 1]
    )
    assert ends(write(ConciseRewards(), tree_of(1, 1, 0)), "concise") == [1, 1, 0]
    right: dict[str, Any] = {"only_if": "right", "weight": 0.4}
    assert ends(write(ConciseRewards(**right), tree_of(1, 1, 0)), "concise") == pytest.approx([1.2, 1, 0])
    assert ends(write(ConciseRewards(**right, longest=3), tree_of(1, 1, 0)), "concise") == pytest.approx(
        [1 + 0.4 / 3, 1, 0]
    )
    assert ends(write(ConciseRewards(**right, unit="steps"), tree_of(1, 1, 0)), "concise") == pytest.approx([1.2, 1, 0])
    assert ends(write(ConciseRewards(), tree_of(0, 0)), "concise") == [0, 0]


def test_solved_every_time_there_is_still_length_to_learn() -> None:
    tree = write(ConciseRewards(), tree_of(1, 1, 1))
    assert not TrajectoryAdvantages()(tree)
    advantages = [term.groups[0].targets[0] for term in TrajectoryAdvantages(reward="concise")(tree)]
    assert advantages == pytest.approx([1, 0, -1])


def test_lengths_that_were_asked_for() -> None:
    tree = tree_of(1, 1, 0, data={"length": 4})
    exact, most = LengthBudget(form="exact", alpha=0.1), LengthBudget(alpha=0.1)
    assert ends(write(exact, tree), "within_budget") == pytest.approx([0.8, 1.0, -0.2])
    assert ends(write(most, tree), "within_budget") == pytest.approx([0.7, 0.5, 0.0])
    assert ends(write(LengthBudget(alpha=1.0, length=2), tree), "within_budget") == pytest.approx([0.5, 0.0, 0.0])
    plain = LengthBudget(form="exact", alpha=0.0, unit="steps")
    assert ends(write(plain, tree), "within_budget") == [1, 1, 0]
    with pytest.raises(GradatimError, match="says no length under 'asked'"):
        write(LengthBudget(field="asked"), tree)
    tree.add(tree.root, Step((), "text", end=EndReason.END_OF_TEXT)).reward = 1.0
    with pytest.raises(GradatimError, match="measure its length in steps"):
        write(exact, tree)


def test_outcomes_move_the_scores_of_steps() -> None:
    """Two draws of a right end and one of a wrong one share the first step."""
    tree = Tree(Problem("p", "x\n"))
    first = add(tree.root, "a", process_reward=0.9, count=3)
    add(first, "b", 1.0, process_reward=0.2, count=2)
    add(first, "c", 0.0, process_reward=0.7)
    add(tree.root, "d", 0.0)
    add(tree.root, "e", process_reward=0.5)
    write(OutcomeCalibrated(), tree)
    assert [node.scores.get("calibrated") for node in tree.nodes[1:]] == pytest.approx(
        [0.9 + 2 / 3 - 1, 0.2, -0.3, None, None], nan_ok=True
    )
    assert first.counts["calibrated"] == 3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.booleans())
def test_no_step_of_a_wrong_solution_earns_and_none_of_a_right_one_costs(scores: list[float], right: bool) -> None:
    tree = Tree(Problem("p", "x\n"))
    node = tree.root
    for place, score in enumerate(scores):
        node = add(node, str(place), float(right) if place == len(scores) - 1 else None, process_reward=score)
    found = [step.scores["calibrated"] for step in write(OutcomeCalibrated(), tree).nodes[1:]]
    assert all(each >= 0 for each in found) if right else all(each <= 0 for each in found)


def path_of(values: list[float]) -> Tree:
    """A path whose steps, and the prompt, have these values."""
    tree = Tree(Problem("p", "x\n"))
    node = tree.root
    node.scores["value"] = values[0]
    for place, value in enumerate(values[1:]):
        node = add(node, str(place), value=value)
    return tree


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=9), st.integers(0, 5))
def test_gains_along_a_path_look_ahead_for_the_next_change(values: list[float], ahead: int) -> None:
    tree = write(StepGains(ahead=ahead, cost=0.1), path_of(values))
    changes = [later - before for before, later in pairwise(values)]
    for place, node in enumerate(tree.nodes[1:]):
        within = [(far, each) for far, each in enumerate(changes[place : place + ahead + 1]) if each]
        expected = 0.7 ** within[0][0] * within[0][1] if within else -0.1
        assert node.scores["gain"] == pytest.approx(expected)


def test_gains_where_several_steps_follow_are_means() -> None:
    tree = path_of([0.5, 0.5])
    (first,) = tree.root.children
    add(first, "right", 1.0, count=3, value=1.0)
    add(first, "same", value=0.5)
    write(StepGains(decay=0.8), tree)
    assert first.scores["gain"] == pytest.approx(0.8 * 3 * 0.5 / 4)
    assert [child.scores["gain"] for child in first.children] == [0.5, 0.0]
    write(StepGains(ahead=0), tree)
    assert first.scores["gain"] == 0.0


def test_clipped_and_differenced_scores_are_rewards_that_repetition_does_not_raise() -> None:
    """Clip and Delta (arXiv:2410.15115) as rewards of steps: a solution that says a good step again earns no more."""
    scores = {"0": 0.9, "1": 0.9, "2": 0.9, "3": 0.4}
    scorer = {"name": "delta", "scorer": {"name": "clip", "threshold": 0.5, "scorer": Given(scores=scores, key="raw")}}
    refined = Scored(key="refined", scorer=make("scorers", scorer))
    options: dict[str, Any] = {"step_reward": "refined", "reward_weight": 0.0, "normalize": "none"}

    def earned(*steps: str) -> float:
        """What the first step of a solution earns by what follows it, beside a solution of one good step."""
        tree = Tree(Problem("p", "x\n"))
        add(tree.root, "0", 0.0)
        node = tree.root
        for place, text in enumerate(steps):
            node = tree.add(
                node,
                Step(
                    (100 + place,), text, end=EndReason.END_OF_TEXT if place == len(steps) - 1 else EndReason.BOUNDARY
                ),
            )
        node.reward = 0.0
        terms = TrajectoryAdvantages(**options)(write(refined, tree))
        return next((term.groups[0].targets[0] for term in terms if term.ends[0] is node), 0.0)

    assert earned("0", "1", "2") == earned("0") == 0.0
    assert earned("0", "1", "3") == pytest.approx(-0.1)
    assert earned("0", "3", "1") == pytest.approx(0.0), "what was bad on the way is undone"


def test_recipes_name_rewards_that_are_written() -> None:
    content = small_content(judge=None)
    content["values"] = [
        "backup",
        {
            "name": "scored",
            "key": "refined",
            "scorer": {"name": "clip", "threshold": 0.5, "scorer": {"name": "rollouts"}},
        },
    ]
    learn: dict[str, Any] = {
        "objective": "policy_gradient",
        "data": [{"name": "trajectory_advantages", "step_reward": "refined"}],
    }
    parse_recipe(content | {"learn": [learn]}, "small")
    learn["data"][0] |= {"reward": "concse"}
    with pytest.raises(GradatimError, match="learns from 'concse', which nothing writes to the trees"):
        parse_recipe(content | {"learn": [learn]}, "small")
