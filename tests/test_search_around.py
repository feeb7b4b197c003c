"""Searches around any other search: what they hand on, and early-stopping self-consistency against its draws."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gradatim.errors import GradatimError
from gradatim.part import chosen_options, content_of, make
from gradatim.recipes import Recipe
from gradatim.recipes.comparison import Method
from gradatim.recipes.overrides import apply_override
from gradatim.run.stages import search_name
from gradatim.scorers.base import Scorer
from gradatim.search import Beam, IndependentSampling, Mcts, best_of_majority, best_of_majority_k, majority
from gradatim.search.around import PolicyAround, ScorerAround, SearchAround
from gradatim.search.decisions import DECISION
from gradatim.search.deepconf import DeepConf
from gradatim.search.early_stopping import EarlyStopping
from gradatim.search.momentum import Momentum
from gradatim.search.pool import Pool
from gradatim.tasks.countdown import make_problem
from gradatim.tree import EndReason, Step
from gradatim.view import render
from scripted_countdown import (
    TASK,
    FunctionScorer,
    arbitrary_scorer,
    arbitrary_value,
    new_tree,
    problems,
    random_policy,
)
from small_runs import small_content

AROUND = [
    EarlyStopping(windows=3),
    EarlyStopping(search=Beam(width=2, branch=2), windows=2, threshold=0.5),
    EarlyStopping(search=Mcts(simulations=3), windows=3),
    Momentum(search=Beam(width=2, branch=3)),
    Momentum(search=Mcts(simulations=4), verify="all"),
    Momentum(search=Pool(search=Beam(width=2, branch=2))),
    Pool(search=Beam(width=2, branch=3)),
    Pool(search=Mcts(simulations=4)),
    Pool(search=IndependentSampling(n=8, wave=2, score="steps"), uses=1),
    EarlyStopping(search=Pool(search=Momentum())),
    DeepConf(n=12, warmup=4, window=8),
    DeepConf(n=12, warmup=4, keep=0.1, choose_by="score"),
]


class _Forgetful(FunctionScorer):
    """Leaves every third step without a score, as one that is too long for its model."""

    async def score(self, nodes):  # type: ignore[no-untyped-def]
        await super().score([node for node in nodes if node.id % 3])


@settings(max_examples=25, deadline=None)
@given(limit=st.integers(0, 1200), seed=st.integers(0, 3), forgets=st.booleans())
def test_none_exceeds_its_budget_and_every_one_ends(limit: int, seed: int, forgets: bool) -> None:
    scorer: Scorer = _Forgetful(arbitrary_value, "arbitrary") if forgets else arbitrary_scorer()
    for search in AROUND:
        tree = new_tree(problems(1)[0], seed=seed, limit=limit)
        asyncio.run(search(tree, random_policy(noise=0.1), scorer, answer=TASK.answer))
        assert tree.budget.total <= limit
        written = sum(len(node.step.tokens) * node.multiplicity for node in tree.nodes[1:])
        assert tree.budget.written("policy") == written
        assert all("why" in node.notes[DECISION] for node in tree.nodes if DECISION in node.notes)
        chosen = search.choose(tree, scorer.name)
        assert chosen is None or chosen.finished


@pytest.mark.parametrize("search", AROUND, ids=search_name)
def test_the_same_seed_gives_the_same_tree(search: SearchAround) -> None:
    trees = []
    for _ in range(2):
        trees.append(new_tree(problems(1)[0], seed=3))
        asyncio.run(search(trees[-1], random_policy(), arbitrary_scorer(), answer=TASK.answer))
    assert trees[0].to_json() == trees[1].to_json()
    assert make("search", content_of(search)) == search


def test_what_stands_around_is_as_the_inner_search_is() -> None:
    assert [EarlyStopping(search=inner).is_guided for inner in (IndependentSampling(), Beam())] == [False, True]
    assert EarlyStopping().grows_with == ("windows", "search.n")
    assert Momentum(search=EarlyStopping()).grows_with == ("search.windows", "search.search.n")
    assert Pool(search=IndependentSampling()).is_guided
    with pytest.raises(GradatimError, match="beam search needs a scorer"):
        asyncio.run(Momentum()(new_tree(), random_policy(), answer=TASK.answer))
    with pytest.raises(GradatimError, match="pool search needs a scorer"):
        asyncio.run(Pool()(new_tree(), random_policy()))


def test_policies_and_scorers_around_others_hand_everything_on() -> None:
    policy, scorer = random_policy(), arbitrary_scorer()
    around, judge = PolicyAround(policy), ScorerAround(scorer)
    plain, wrapped = new_tree(seed=1), new_tree(seed=1)
    asyncio.run(Beam()(plain, policy, scorer))
    asyncio.run(Beam()(wrapped, around, judge))
    assert plain.to_json() == wrapped.to_json()
    assert (around.source, around.sampling, around.account) == (policy.source, policy.sampling, policy.account)
    around.release(wrapped)
    asyncio.run(around.close())


def test_options_of_the_inner_search_are_set_like_all_others() -> None:
    content = {"name": "early_stopping", "search": {"name": "momentum", "search": {"name": "beam"}}}
    apply_override(content, "search.search.width=2")
    apply_override(content, "windows=3")
    made = make("search", content)
    assert made == EarlyStopping(search=Momentum(search=Beam(width=2)), windows=3)
    told = {"windows": 3, "search": {"name": "momentum", "search": {"name": "beam", "width": 2}}}
    assert chosen_options(made) == told
    assert search_name(made) == "search-early_stopping-search-name-momentum-search-name-beam-width-2-windows-3"
    method = Method(name="gated", search=content_of(made.search), sizes=[1, 2])
    assert [method.sized(size) for size in (1, 4)] == [Momentum(search=Beam(width=width)) for width in (1, 4)]
    for search, said in (({"name": "bem"}, "did you mean 'beam'"), ({"name": "beam", "width": 0}, "greater than 0")):
        with pytest.raises(GradatimError, match=said):
            make("search", {"name": "pool", "search": search})


def test_a_recipe_learns_from_what_the_inner_search_writes() -> None:
    search = {"name": "early_stopping", "search": {"name": "mcts", "simulations": 4}}
    judge = {"data": [{"name": "step_labels", "value": "mcts"}]}
    content = small_content(judge=judge, objective=None, search=search, scorer={"name": "rollouts"})
    assert Recipe.model_validate(content).search == EarlyStopping(search=Mcts(simulations=4))
    with pytest.raises(ValueError, match="search needs a scorer to guide it"):
        Recipe.model_validate({**content, "scorer": None})


@pytest.mark.parametrize(("threshold", "window"), [(1.0, 2), (1.0, 3), (0.6, 5), (0.75, 4)])
def test_early_stopping_ends_with_the_first_window_that_agrees(threshold: float, window: int) -> None:
    ends = set()
    problem, policy = make_problem((2, 3), 6), random_policy()  # four moves, each a solution
    for seed in range(12):
        tree = new_tree(problem, seed=seed)
        leaves = asyncio.run(policy.extend([tree.root], 6 * window, steps=None))
        answers = [TASK.answer(problem, leaf.text) for leaf in leaves]
        windows = [answers[start : start + window] for start in range(0, len(answers), window)]
        largest = [max(Counter(filter(None, each)).values(), default=0) for each in windows]
        expected = next((i for i, votes in enumerate(largest, 1) if votes / window >= threshold), 6)
        search = EarlyStopping(search=IndependentSampling(n=window), windows=6, threshold=threshold)
        searched = new_tree(problem, seed=seed)
        asyncio.run(search(searched, policy, answer=TASK.answer))
        assert searched.root.draws == expected * window
        assert all(leaf.reward is None for leaf in searched.solutions()), "the verifier was not asked"
        assert search.choose(searched, None) is majority(searched)
        said = searched.root.notes[DECISION]["why"]
        assert said == f"window {expected}: {largest[expected - 1]} of {window} solutions agree"
        ends.add(expected)
    assert len(ends) > 1, "the cases tell windows apart"


def test_early_stopping_needs_answers_and_is_not_stopped_by_solutions_without_one() -> None:
    with pytest.raises(GradatimError, match="give it the task's answer"):
        asyncio.run(EarlyStopping()(new_tree(), random_policy()))
    tree = new_tree()
    asyncio.run(EarlyStopping(windows=3)(tree, random_policy(), answer=lambda problem, text: None))
    assert tree.root.draws == 15
    assert EarlyStopping().choose(tree, None) is None


def test_the_prompt_says_why_the_windows_ended() -> None:
    tree = new_tree()
    asyncio.run(EarlyStopping(windows=1)(tree, random_policy(), answer=TASK.answer))
    console = Console(width=200)
    with console.capture() as shown:
        console.print(render(tree, why=True))
    assert "(expanded: window 1: " in shown.get().splitlines()[0]


def test_best_of_majority_hands_in_the_best_of_different_frequent_answers() -> None:
    tree = new_tree()
    found = {}
    for token, (answer, score, votes) in enumerate(
        [("rare", 0.9, 1), ("a", 0.3, 3), ("a", 0.5, 1), ("b", 0.4, 3), ("c", None, 3), (None, 1.0, 9)], start=1
    ):
        for _ in range(votes):
            leaf = tree.add(tree.root, Step((token,), f"={answer}", end=EndReason.END_OF_TEXT))
        leaf.answer = answer
        found[answer, score] = leaf
        if score is not None:
            leaf.scores["s"] = score
    best_of_a, b, c = found["a", 0.5], found["b", 0.4], found["c", None]
    assert best_of_majority_k(tree, "s", 2, frequent=0.2) == [best_of_a, b]
    assert best_of_majority_k(tree, "s", 9, frequent=0.2) == [best_of_a, b, c]
    assert best_of_majority_k(tree, "s", 2, frequent=0.0) == [found["rare", 0.9], best_of_a]
    assert best_of_majority_k(tree, "s", 1, frequent=0.2) == [best_of_majority(tree, "s", frequent=0.2)]
    with pytest.raises(GradatimError, match="at least one solution"):
        best_of_majority_k(tree, "s", 0)
