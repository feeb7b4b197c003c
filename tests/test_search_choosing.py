"""Selection rules on trees made by hand."""

from __future__ import annotations

import asyncio

import pytest

from gradatim.errors import GradatimError
from gradatim.search import (
    Beam,
    IndependentSampling,
    best_of_majority,
    best_of_n,
    by_answer,
    give_answers,
    majority,
    path_score,
    weighted_majority,
)
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from scripted_countdown import TASK, new_tree, problems, random_policy


def add_solution(
    tree: Tree, token: int, answer: str | None, scores: tuple[float, float] | None, *, votes: int = 1
) -> Node:
    """A solution of two steps with a score each."""
    first = tree.add(tree.root, Step((token,), f"{token}\n"))
    last = first
    for _ in range(votes):
        last = tree.add(first, Step((token, 0), f"={answer}", end=EndReason.END_OF_TEXT))
    if scores is not None:
        first.scores["s"], last.scores["s"] = scores
    last.answer, last.reward = answer, 0.0
    return last


@pytest.fixture
def tree() -> Tree:
    return new_tree()


def test_best_of_n_takes_the_highest_final_score_or_path_score(tree: Tree) -> None:
    steady = add_solution(tree, 1, "1", (0.6, 0.7))
    late = add_solution(tree, 2, "2", (0.1, 0.9))
    early = add_solution(tree, 3, "3", (1.0, 0.5))
    add_solution(tree, 4, "4", None)
    assert best_of_n(tree, "s") is late
    assert best_of_n(tree, "s", aggregate="min") is steady
    assert best_of_n(tree, "s", aggregate="product") is early
    assert best_of_n(tree, "s", aggregate="mean") is early


def test_path_scores_combine_the_steps_and_need_all_of_them(tree: Tree) -> None:
    leaf = add_solution(tree, 1, "1", (0.5, 0.8))
    assert path_score(leaf, "s") == 0.8
    assert path_score(leaf, "s", "min") == 0.5
    assert path_score(leaf, "s", "product") == pytest.approx(0.4)
    assert path_score(leaf, "s", "mean") == pytest.approx(0.65)
    assert leaf.parent is not None
    del leaf.parent.scores["s"]
    assert path_score(leaf, "s") == 0.8
    assert path_score(leaf, "s", "min") is None
    assert path_score(leaf, "other") is None


def test_ties_go_to_the_first_and_unscored_solutions_come_last(tree: Tree) -> None:
    unscored = add_solution(tree, 1, "1", None)
    assert best_of_n(tree, "s") is unscored
    first = add_solution(tree, 2, "2", (0.0, -5.0))
    add_solution(tree, 3, "3", (0.0, -5.0))
    assert best_of_n(tree, "s") is first


def test_majority_counts_every_sample_and_ignores_missing_answers(tree: Tree) -> None:
    add_solution(tree, 1, None, None, votes=9)
    add_solution(tree, 2, "a", None)
    add_solution(tree, 3, "b", None, votes=2)
    often = add_solution(tree, 4, "a", None, votes=2)
    assert majority(tree) is often  # "a" has three votes, and of its solutions this one was sampled most often


def test_majority_ties_go_to_the_answer_found_first(tree: Tree) -> None:
    first = add_solution(tree, 1, "a", None)
    add_solution(tree, 2, "b", None)
    assert majority(tree) is first


def test_weighted_majority_sums_scores_over_samples(tree: Tree) -> None:
    add_solution(tree, 1, "a", (0.0, 0.9))
    weak = add_solution(tree, 2, "b", (0.0, 0.2), votes=3)
    strong = add_solution(tree, 3, "b", (0.0, 0.4))
    add_solution(tree, 4, "b", None)
    assert weighted_majority(tree, "s") is strong  # 3 * 0.2 + 0.4 > 0.9
    weak.multiplicity = 2
    winner = weighted_majority(tree, "s")
    assert winner is not None
    assert winner.answer == "a"
    assert weighted_majority(tree, "s", aggregate="min") is not None


def test_nothing_to_choose_from(tree: Tree) -> None:
    tree.add(tree.root, Step((1,), "open\n"))
    assert best_of_n(tree, "s") is None
    assert majority(tree) is None
    assert weighted_majority(tree, "s") is None


def test_votes_need_graded_solutions_and_scores_of_zero_or_more(tree: Tree) -> None:
    leaf = add_solution(tree, 1, "a", (0.0, -0.1))
    with pytest.raises(GradatimError, match="0 or more"):
        weighted_majority(tree, "s")
    leaf.reward = leaf.answer = None
    assert majority(tree) is None, "it was asked, and has no answer"
    asyncio.run(IndependentSampling(n=2)(unasked := new_tree(problems(1)[0]), random_policy()))
    with pytest.raises(GradatimError, match="grade the tree, or give the search the task's answer"):
        majority(unasked)


def test_a_search_votes_by_answers_that_it_asks_for() -> None:
    tree = new_tree(problems(1)[0])
    asked: list[str] = []

    def answer(problem: Problem, text: str) -> str | None:
        asked.append(text)
        return TASK.answer(problem, text)

    asyncio.run(IndependentSampling(n=8)(tree, random_policy(), answer=answer))
    solutions = tree.solutions()
    assert sorted(asked) == sorted(leaf.text for leaf in solutions)
    assert [leaf.answer for leaf in solutions] == [TASK.answer(tree.problem, leaf.text) for leaf in solutions]
    assert all(leaf.reward is None and not leaf.notes for leaf in solutions), "nobody asked for the truth"
    groups = by_answer(tree)
    assert {len({leaf.answer for leaf in group}) for group in groups} == {1}
    assert majority(tree) in max(groups, key=lambda group: sum(leaf.multiplicity for leaf in group))
    asked.clear()
    asyncio.run(give_answers(tree, answer))
    assert not asked, "what is known is not asked again"
    again = Tree.from_json(tree.to_json())
    asyncio.run(give_answers(again, answer))
    assert not asked, "nor is it after it was stored"


def test_a_vote_needs_answers_and_no_truth() -> None:
    asked = Tree(Problem("p", "how many?"))
    add_solution(asked, 1, None, (0.5, 0.5)).reward = None
    assert majority(asked) is None
    voted = add_solution(asked, 2, "a", (0.5, 0.5))
    voted.reward = None
    assert majority(asked) is voted
    assert weighted_majority(asked, "s") is voted


def test_best_of_majority_asks_the_scorer_among_frequent_answers_alone(tree: Tree) -> None:
    add_solution(tree, 1, "rare", (0.9, 0.9))
    add_solution(tree, 2, "a", (0.2, 0.3), votes=2)
    better = add_solution(tree, 3, "a", (0.2, 0.5), votes=1)
    add_solution(tree, 4, "b", (0.2, 0.4), votes=3)
    assert best_of_majority(tree, "s", frequent=0.4) is better
    assert best_of_majority(tree, "s", frequent=0.0) is best_of_n(tree, "s")
    assert best_of_majority(tree, "s", frequent=1.0) is better  # no answer is that frequent: the most frequent ones


def test_every_search_chooses_by_the_rule_that_it_is_given(tree: Tree) -> None:
    lone = add_solution(tree, 1, "1", (0.6, 0.9))
    frequent = add_solution(tree, 2, "2", (0.6, 0.3), votes=2)
    assert Beam().choose(tree, "s") is lone
    assert Beam(choose_by="majority").choose(tree, "s") is frequent
    assert Beam(choose_by="weighted_majority").choose(tree, "s") is lone
    assert Beam(choose_by="best_of_majority").choose(tree, "s") is lone
    assert IndependentSampling().choose(tree, None) is frequent
    with pytest.raises(GradatimError, match="needs a scorer"):
        IndependentSampling(choose_by="score").choose(tree, None)
