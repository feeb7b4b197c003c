"""Searches that go back: greedy search with back-ups and stepwise correction, on trees that are written down."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.search.backtracking import Backtracking
from gradatim.search.base import Search
from gradatim.search.correction import Correction
from gradatim.search.decisions import DECISION
from gradatim.tasks.base import grade
from gradatim.tree import EndReason, Node, Tree
from scripted_countdown import (
    TASK,
    FunctionScorer,
    ListingPolicy,
    arbitrary_scorer,
    new_tree,
    oracle_scorer,
    problems,
    random_moves,
    random_policy,
)

SCORES = {"a\n": 0.9, "b\n": 0.8, "c\n": 0.1, "a\na\n": 0.2, "a\nb\n": 0.1, "b\na\n": 0.6, "b\nb\n": 0.7}


def two_letters(node: Node) -> list[ScriptedStep]:
    """Steps ``a`` to ``c`` at three depths; the third one ends the solution."""
    end = EndReason.END_OF_TEXT if node.depth == 2 else EndReason.BOUNDARY
    return [ScriptedStep(letter + ("\n" if node.depth < 2 else ""), 1.0, end) for letter in "abc"]


def written_scores() -> FunctionScorer:
    return FunctionScorer(lambda node: SCORES.get(node.text, 0.55 if node.text == "b\nb\na" else 0.3), "written")


def decision(tree: Tree, text: str) -> str:
    return str(next(node for node in tree.nodes if node.text == text).notes[DECISION]["decision"])


def test_it_goes_back_where_every_step_is_bad_and_takes_the_next_best() -> None:
    tree = new_tree()
    search = Backtracking(branch=3)
    asyncio.run(search(tree, ListingPolicy(two_letters), written_scores()))
    assert [node.text for node in tree.nodes if node.children] == ["", "a\n", "b\n", "b\nb\n"]
    assert decision(tree, "a\n") == "dropped"
    assert decision(tree, "b\n") == decision(tree, "b\nb\n") == "expanded"
    assert decision(tree, "c\n") == decision(tree, "b\na\n") == "pruned"
    chosen = search.choose(tree, "written")
    assert chosen is not None
    assert chosen.text == "b\nb\na"


def test_after_its_expansions_it_completes_the_best_open_step() -> None:
    tree = new_tree()
    search = Backtracking(branch=3, threshold=0.95, expansions=2)
    asyncio.run(search(tree, ScriptedPolicy(two_letters), written_scores()))
    best = max((node for node in tree.nodes[1:] if node.depth == 1), key=lambda node: SCORES[node.text])
    assert decision(tree, best.text) == "expanded"
    assert tree.root.draws == 6, "below the prompt it draws again"
    chosen = search.choose(tree, "written")
    assert chosen is not None
    assert chosen.path()[1] is best


def test_guided_by_the_oracle_it_solves_what_can_be_solved_and_never_follows_a_bad_step() -> None:
    for problem in problems(10):
        tree = new_tree(problem)
        search = Backtracking(branch=1000)
        asyncio.run(search(tree, ListingPolicy(random_moves()), oracle_scorer()))
        grade(tree, TASK)
        chosen = search.choose(tree, "oracle")
        assert chosen is not None
        assert chosen.correct
        assert all(node.scores["oracle"] == 1.0 for node in tree.nodes[1:] if node.children)


def test_a_solution_is_revised_from_its_first_bad_step_until_none_is_bad() -> None:
    bad_first: dict[int, int] = {}
    one_way = FunctionScorer(lambda node: 0.6 if "b\nb\na".startswith(node.text) else 0.4, "written")
    for seed in range(30):
        tree = new_tree(seed=seed)
        search = Correction(rounds=50)
        asyncio.run(search(tree, ScriptedPolicy(two_letters), one_way))
        chosen = search.choose(tree, "written")
        assert chosen is not None
        assert chosen.text == "b\nb\na", "the only solution without a bad step"
        for node in tree.nodes:
            if node.notes.get(DECISION, {}).get("decision") == "dropped":
                assert node.scores["written"] < 0.5
                assert all(each.scores["written"] >= 0.5 for each in node.path()[1:-1])
                assert node.parent is not None
                assert node.parent.draws > 1, "what stands before it is continued anew"
                bad_first[node.depth] = bad_first.get(node.depth, 0) + 1
    assert set(bad_first) == {1, 2, 3}


def test_a_correction_ends_after_its_rounds_and_takes_the_best_of_several_draws() -> None:
    tree = new_tree()
    scorer = FunctionScorer(lambda node: 0.4, "low")
    asyncio.run(Correction(rounds=4)(tree, random_policy(), scorer))
    assert tree.root.draws == 5
    tree = new_tree(seed=2)
    search = Correction(rounds=3, draws=60)
    asyncio.run(search(tree, ScriptedPolicy(two_letters), written_scores()))
    assert tree.root.draws == 60, "the best of so many has no bad step"
    chosen = search.choose(tree, "written")
    assert chosen is not None
    assert chosen.text == "b\nb\na"


def test_a_solution_that_was_cut_off_is_revised_where_it_was() -> None:
    tree = new_tree(problems(1)[0])
    good = FunctionScorer(lambda node: 1.0, "good")
    asyncio.run(Correction(rounds=3)(tree, random_policy(), good, sampling=Sampling(max_steps=1)))
    assert tree.root.draws == 4
    assert Correction().choose(tree, "good") is None


@settings(max_examples=25, deadline=None)
@given(limit=st.integers(0, 900), seed=st.integers(0, 3), steps=st.integers(1, 4))
def test_both_end_within_any_budget(limit: int, seed: int, steps: int) -> None:
    searches: list[Search] = [Backtracking(branch=2, threshold=0.6), Correction(draws=2, threshold=0.6)]
    for search in searches:
        tree = new_tree(problems(1)[0], seed=seed, limit=limit)
        sampling = Sampling(max_steps=steps)
        asyncio.run(search(tree, random_policy(0.1), arbitrary_scorer(), sampling=sampling, answer=TASK.answer))
        assert tree.budget.total <= limit
        assert all(leaf.answered for leaf in tree.solutions())


def test_they_need_a_scorer_and_options_that_make_sense() -> None:
    for part in (Backtracking, Correction):
        with pytest.raises(GradatimError, match="needs a scorer to guide it"):
            asyncio.run(part()(new_tree(), random_policy()))
    for part, options in ((Backtracking, {"branch": 0}), (Backtracking, {"expansions": 0}), (Correction, {"draws": 0})):
        with pytest.raises(GradatimError, match=next(iter(options))):
            part(**options)  # type: ignore[arg-type]
