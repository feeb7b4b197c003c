"""A run that finds nothing to learn from says why, and names the key that changes it."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gradatim.errors import GradatimError
from gradatim.objectives import PolicyGradient
from gradatim.recipes import Recipe
from gradatim.run import Progress, run_recipe
from gradatim.run.nothing_learned import no_terms, same_targets
from gradatim.supervision.terms import labelled_step
from gradatim.tree import EndReason, Problem, Step, Tree
from gradatim.values.backup import back_up_values
from gradatim.values.base import VALUE
from small_runs import small_recipe

OPEN, RIGHT, WRONG, LONG, SPENT = "open", "right", "wrong", "long", "spent"
ENDS = {OPEN: EndReason.BOUNDARY, LONG: EndReason.LENGTH, SPENT: EndReason.BUDGET}


def tree_of(*leaves: str) -> Tree:
    """A tree whose first steps end as they are called; each is another step."""
    tree = Tree(Problem("p", "prompt\n"))
    for number, kind in enumerate(leaves):
        tokens = tuple(range(16)) if kind == LONG else (number,)
        end = ENDS.get(kind, EndReason.END_OF_TEXT)
        node = tree.add(tree.root, Step(tokens, f"{number}\n", end=end))
        node.reward = None if kind == OPEN else float(kind == RIGHT)
    back_up_values(tree, VALUE)
    return tree


def valued(*values: float, count: int = 1) -> Tree:
    """A tree with a right and a wrong solution, and open siblings of these values beside them."""
    tree = tree_of(RIGHT, WRONG)
    parent = tree.add(tree.root, Step((9,), "9\n"))
    for number, value in enumerate(values):
        child = tree.add(parent, Step((20 + number,), f"{20 + number}\n"))
        child.scores[VALUE], child.counts[VALUE] = value, count
    for node in tree.root.children:
        node.scores.pop(VALUE, None)
    return tree


def recipe(objective: str = "step_dpo", **changes: Any) -> Recipe:
    data = {key: changes.pop(key) for key in ("data",) if key in changes}
    return small_recipe(objective={"name": objective, **data}, **changes)


def judge_error(made: Recipe, trees: list[Tree]) -> GradatimError:
    """Why the reward model finds nothing."""
    return no_terms(made, made.learn[0], trees)


def policy_error(made: Recipe, trees: list[Tree]) -> GradatimError:
    """Why the policy finds nothing."""
    return no_terms(made, made.learn[-1], trees)


@pytest.mark.parametrize(
    ("trees", "said"),
    [
        ([tree_of(OPEN, OPEN)], "none of 2 solutions is finished, since 2 were left open; raise search.rollouts"),
        ([tree_of(LONG, LONG, OPEN)], "cut off at the longest step; raise policy.sampling.max_step_tokens"),
        ([tree_of(SPENT)], "since 1 were cut off by the budget; raise trees.budget"),
    ],
)
def test_where_no_solution_is_finished_the_limit_is_named(trees: list[Tree], said: str) -> None:
    for error in (judge_error(recipe(), trees), policy_error(recipe("sft"), trees)):
        assert said in str(error)
        assert "min_" not in str(error)


@pytest.mark.parametrize(
    ("trees", "label", "said"),
    [
        ([tree_of(LONG, LONG)], 0.0, "cut off at the longest step; raise policy.sampling.max_step_tokens"),
        ([tree_of(WRONG, WRONG)], 0.0, "no solution is right"),
        ([tree_of(RIGHT, RIGHT)], 1.0, "every solution is right; take problems that the policy does not always solve"),
    ],
)
def test_labels_that_are_all_the_same_teach_nothing(trees: list[Tree], label: float, said: str) -> None:
    made = recipe()
    labels = [labelled_step(node, label) for tree in trees for node in tree.nodes[1:]]
    error = str(same_targets(made, made.learn[0], labels, trees))
    assert error.startswith(f"every step label is {label:g}, so that the scorer has nothing to tell apart: ")
    assert said in error


def test_a_run_whose_solutions_are_all_cut_off_trains_no_scorer_and_still_reports(tmp_path: Path) -> None:
    """It trained one on labels that were all 0, and broke off at the figure of a tree without scores."""
    cut = {"model": "shipped:countdown", "device": "cpu", "sampling": {"max_step_tokens": 16, "max_steps": 1}}
    changes = {"policy": cut, "objective": None, "evaluation": {"samples": 2, "best_of": [2], "majority": [2]}}
    progress = Progress(Console(file=io.StringIO()))
    with pytest.raises(GradatimError, match=r"every step label is 0.*cut off at the most steps; raise policy"):
        run_recipe(small_recipe(**changes, problems={"train": 2, "test": 2}), tmp_path / "learned", progress=progress)
    given = {"model": "shipped:countdown-reward", "train": False}
    report = run_recipe(
        small_recipe(**changes, search=None, judge=given, problems={"test": 2}), tmp_path / "given", progress=progress
    )
    assert report["finding"] == ["Nothing was solved: none of 4 solutions of 2 held-out problems is right."]


def test_a_scorer_without_labels_hears_of_min_count_where_that_is_the_reason() -> None:
    tree = valued(0.5, count=3)
    strict = recipe(judge={"data": [{"name": "step_labels", "min_count": 4}]})
    assert "learn.0.data.0.min_count (4) leaves none; lower it" in str(judge_error(strict, [tree]))


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_only_step_pairs_hear_of_their_options(objective: str) -> None:
    error = str(policy_error(recipe(objective), [tree_of(WRONG, WRONG)]))
    assert "no solution is right" in error
    assert "learn." not in error


def test_pairs_of_solutions_need_both_kinds_of_one_problem() -> None:
    error = str(policy_error(recipe("dpo"), [tree_of(RIGHT, RIGHT), tree_of(WRONG)]))
    assert error.startswith("the trees hold no pairs of solutions to learn from: ")
    assert "no problem has both a right and a wrong solution" in error
    assert "learn." not in error


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"name": "sibling_pairs", "min_gap": 0.5}, r"data\.0\.min_gap \(0\.5\) leaves none; lower it, or draw more"),
        ({"name": "sibling_pairs", "min_count": 4}, r"data\.0\.min_count \(4\) leaves none; lower it"),
        ({"name": "first_error_pairs", "min_gap": 0.1}, r"draw more solutions of each problem \(search\.rollouts"),
    ],
)
def test_step_pairs_hear_which_option_leaves_none(data: dict[str, Any], said: str) -> None:
    error = str(policy_error(recipe(data=[data]), [valued(0.5, 0.75)]))
    assert re.search(said, error), error


@pytest.mark.parametrize(
    ("search", "key"),
    [
        ({"name": "sampling", "n": 2}, "search.n"),
        ({"name": "mcts"}, "search.simulations"),
        ({"name": "beam"}, "search.width"),
    ],
)
def test_advice_names_keys_that_the_search_has(search: dict[str, Any], key: str) -> None:
    error = str(policy_error(recipe("dpo", search=search, scorer="rollouts"), [tree_of(RIGHT)]))
    assert f"({key})" in error


@pytest.mark.parametrize(
    "learner",
    [{"objective": None}, {"judge": None, "objective": {"name": "sft"}, "evaluation": {"samples": 1}}],
)
def test_a_run_whose_trees_are_left_open_names_rollouts(learner: dict[str, Any], tmp_path: Path) -> None:
    open_leaves = {"name": "grow", "branching": [2], "rollouts": 0}
    asked = small_recipe(problems={"train": 2, "test": 1}, search=open_leaves, **learner)
    with pytest.raises(GradatimError, match=r"none of \d solutions is finished.*raise search\.rollouts"):
        run_recipe(asked, tmp_path, progress=Progress(Console(file=io.StringIO())))


@pytest.mark.parametrize(
    ("trees", "said"),
    [
        ([tree_of(RIGHT, RIGHT), tree_of(WRONG, WRONG)], "no problem has both a right and a wrong solution"),
        ([valued(0.5, 0.5)], "no step has siblings whose values differ; draw more solutions of each problem (search."),
        ([tree_of(LONG, LONG, OPEN)], "cut off at the longest step; raise policy.sampling.max_step_tokens"),
    ],
)
def test_advantages_without_a_difference_say_what_they_ask_for(trees: list[Tree], said: str) -> None:
    made = recipe("policy_gradient", data=["sibling_advantages"])
    assert not [term for tree in trees for term in made.learn[-1].data[0](tree)]
    error = str(policy_error(made, trees))
    assert error.startswith("the trees hold no advantages to learn from: ")
    assert said in error


def test_solutions_that_all_come_to_the_same_still_have_advantages() -> None:
    """A value head beside the policy learns what they come to; that alone would be nothing to tell apart."""
    made = recipe("policy_gradient", data=["trajectory_advantages"])
    learn = made.learn[-1].model_copy(update={"objective": PolicyGradient(value=0.5)})
    term = labelled_step(tree_of(RIGHT).nodes[1], 1.0)
    assert same_targets(made, learn, [term], [tree_of(RIGHT)]) is None


def test_how_sure_the_reference_was_is_asked_of_a_model() -> None:
    with pytest.raises(GradatimError, match="trees do not record; set reference"):
        small_recipe(
            objective={"name": "policy_gradient", "kl": 0.1, "kl_confidence": 1.0, "data": ["trajectory_advantages"]}
        )
