"""Solutions of which steps are left out: which, that only right ones are learned from, and in which order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.recipes import Recipe, load_recipe
from gradatim.run.nothing_learned import no_terms
from gradatim.run.stages import stages_of
from gradatim.supervision import Construction, DroppedSteps, InternalisedSteps, PrunedSolutions, RightSolutions
from gradatim.supervision.chosen import WRONG, Choice, chosen_terms
from gradatim.supervision.filters.difficulty import share_right
from gradatim.tasks import Countdown, WordProblems
from gradatim.tasks.base import Task, grade
from gradatim.tree import EndReason, Problem, Step, Tree
from small_runs import small_recipe
from supervision_trees import VALUE, valued_trees

WORDS = WordProblems(operations=(3, 3))
PROBLEM, SOLUTION = next(WORDS.demonstrations("train"))
LINES = SOLUTION.splitlines(keepends=True)
NEEDLESS = LINES[0]  # what was derived before is right, and needless


def solved(task: Task, problem: Problem, *solutions: list[str]) -> Tree:
    tree = Tree(problem)
    for lines in solutions:
        node = tree.root
        for line in lines:
            end = EndReason.END_OF_TEXT if line is lines[-1] else EndReason.BOUNDARY
            node = tree.add(node, Step((), line, end=end))
    grade(tree, task)
    return tree


def written(construction: Construction, tree: Tree) -> list[list[str]]:
    return [[node.step.text for node in term.groups[0].nodes] for term in construction(tree)]


def test_first_or_last_steps_are_left_out_and_the_end_never() -> None:
    tree = solved(WORDS, PROBLEM, LINES, ["Answer: 0"])
    first, second, third, answer = LINES
    assert written(InternalisedSteps(), tree) == [[second, third, answer]]
    assert written(InternalisedSteps(removed=2), tree) == [[third, answer]]
    assert written(InternalisedSteps(removed=2, side="last"), tree) == [[first, answer]]
    assert written(InternalisedSteps(removed=9), tree) == written(InternalisedSteps(removed=None), tree) == [[answer]]
    assert written(InternalisedSteps(removed=9, side="last"), tree) == [[answer]]
    assert list(InternalisedSteps(removed=0)(tree)) == RightSolutions()(tree), "none removed: the right solutions"
    (term,) = InternalisedSteps()(tree)
    assert (end := term.ends[0]).tree is not tree
    assert (end.correct, share_right(end.tree)) == (None, 0.5)


def test_solutions_that_become_one_are_learned_once() -> None:
    tree = solved(WORDS, PROBLEM, LINES, [LINES[0], *LINES])
    assert written(InternalisedSteps(removed=None), tree) == [[LINES[-1]]]


@settings(max_examples=40)
@given(
    tree=valued_trees(), removed=st.integers(0, 4), side=st.sampled_from(["first", "last"]), smoothing=st.floats(0, 0.9)
)
def test_what_is_left_is_in_order_and_no_longer_than_asked(
    tree: Tree, removed: int, side: Any, smoothing: float
) -> None:
    constructions: list[Construction] = [
        InternalisedSteps(removed=removed, side=side, smoothing=smoothing),
        DroppedSteps(share=0.5),
        PrunedSolutions(),
    ]
    right = [[node.step.text for node in leaf.path()[1:]] for leaf in tree.solutions() if leaf.correct]
    for place, construction in enumerate(constructions):
        for lines in written(construction, tree):
            (whole,) = [each for each in right if each[-1] == lines[-1]]  # every step has a text of its own
            rest = iter(whole)
            assert all(line in rest for line in lines), "a part of it, in order"
            assert place or len(lines) <= max(1, len(whole) - removed)


def test_smoothing_is_a_geometric_chance_of_further_steps() -> None:
    shares = []
    for smoothing in (0.0, 0.5):
        construction = InternalisedSteps(removed=1, smoothing=smoothing)
        trees = [solved(WORDS, Problem(str(n), PROBLEM.prompt, PROBLEM.answer), LINES) for n in range(400)]
        lengths = [len(written(construction, tree)[0]) for tree in trees]
        shares.append([lengths.count(length) / 400 for length in (3, 2, 1)])
    assert shares[0] == [1, 0, 0]
    assert shares[1] == pytest.approx([0.5, 0.25, 0.25], abs=0.08)


def test_strategies_are_drawn_by_their_weights() -> None:
    tree = solved(WORDS, PROBLEM, LINES)
    assert list(DroppedSteps(drop_some=0, drop_all=0)(tree)) == RightSolutions()(tree)
    assert written(DroppedSteps(keep_all=0, drop_some=0), tree) == [[LINES[-1]]]
    trees = [solved(WORDS, Problem(str(n), PROBLEM.prompt, PROBLEM.answer), LINES) for n in range(400)]
    kept = [len(written(DroppedSteps(keep_all=0, drop_all=0, share=0.25), each)[0]) - 1 for each in trees]
    assert sum(kept) / (3 * 400) == pytest.approx(0.75, abs=0.05)
    with pytest.raises(GradatimError, match="give one of keep_all, drop_some and drop_all a weight above 0"):
        DroppedSteps(keep_all=0, drop_some=0, drop_all=0)


def test_steps_that_do_not_raise_the_value_are_pruned_if_the_steps_left_are_right() -> None:
    padded = [LINES[0], NEEDLESS, *LINES[1:]]
    tree = solved(WORDS, PROBLEM, padded)
    values = (0.3, 0.6, 0.6, 0.8, 0.9, 1.0)
    for node, value in zip(tree.nodes, values, strict=True):
        node.scores[VALUE] = value
    terms, table = chosen_terms([tree], [PrunedSolutions()], [], WORDS)
    assert [node.step.text for node in terms[0].groups[0].nodes] == LINES
    assert terms[0].ends[0].correct
    assert table == [Choice("pruned_solutions", 1)]
    unsound = PrunedSolutions(least_gain=0.25)
    terms, table = chosen_terms([tree], [unsound], [], WORDS)
    assert not terms, "a derivation is missing"
    assert table == [Choice("pruned_solutions (least_gain 0.25)", 0, 1, WRONG)]
    loose = PrunedSolutions(least_gain=0.25, steps_right=False)
    assert len(chosen_terms([tree], [loose], [], WORDS)[0]) == 1, "the answer is right"
    assert list(PrunedSolutions(least_gain=-1)(tree)) == RightSolutions()(tree)
    del tree.nodes[2].scores[VALUE]
    assert written(PrunedSolutions(), tree) == [padded], "of what is not known nothing is dropped"


def test_countdown_has_no_step_to_spare_and_the_error_says_so() -> None:
    countdown = Countdown(seed=1)
    problem, solution = next(countdown.demonstrations("train"))
    tree = solved(countdown, problem, solution.splitlines(keepends=True))
    content = {"objective": "sft", "data": ["internalised_steps"]}
    recipe = small_recipe(judge=None, objective=None, learn=[content])
    assert chosen_terms([tree], recipe.learn[0].data, [], countdown)[0] == []
    error = str(no_terms(recipe, recipe.learn[0], [tree]))
    assert "none of 1 that were written is right; the task must call a solution right of which steps" in error


def test_each_round_may_begin_with_the_first_policy() -> None:
    recipe = load_recipe("rest")
    assert isinstance(recipe, Recipe)
    stages = stages_of(recipe)
    assert [stages[f"policy-{number}"].uses for number in (1, 2, 3)] == [{"policy": None}] * 3
    assert stages["round-3"].uses == {"policy": "policy-2"}
    assert "round-3" in stages["policy-3"].after
    going_on = load_recipe("rest", ["learn.0.begin=null"])
    assert isinstance(going_on, Recipe)
    assert stages_of(going_on)["policy-3"].uses == {"policy": "policy-2"}


def test_demonstrations_come_before_any_trees_and_begin_nowhere_else() -> None:
    content = {"objective": "sft", "demonstrations": 4, "begin": "first"}
    with pytest.raises(GradatimError, match="demonstrations are learned from before any trees: leave begin out"):
        small_recipe(judge=None, objective=None, learn=[content])


def test_stages_of_internalisation_go_on_from_one_another() -> None:
    recipe = load_recipe("internalise", ["problems.test=0"])
    assert isinstance(recipe, Recipe)
    stages = stages_of(recipe)
    assert stages["policy-1-3"].uses == {"policy": "policy-1-2"}
    assert {"round-1", "policy-1-2"} <= set(stages["policy-1-3"].after)
