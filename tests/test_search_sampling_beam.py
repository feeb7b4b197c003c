"""Independent sampling and beam search against brute force, and under every budget."""

from __future__ import annotations

import asyncio

import pytest
from rich.console import Console

from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.scorers.aggregation import Aggregate
from gradatim.search import Beam, IndependentSampling, best_of_n, path_score
from gradatim.search.decisions import DECISION
from gradatim.search.ranking import best
from gradatim.tasks.base import grade
from gradatim.tree import EndReason, Problem, Tree
from gradatim.view import render
from scripted_countdown import (
    TASK,
    ListingPolicy,
    arbitrary_scorer,
    arbitrary_value,
    new_tree,
    oracle_scorer,
    problems,
    random_moves,
    random_policy,
)

EVERYTHING = 10_000
ONE_STEP = Sampling(max_steps=1)


def whole_tree(problem: Problem) -> Tree:
    """Every solution of ``problem`` by legal moves, every step scored."""
    tree = new_tree(problem)
    policy = ListingPolicy(random_moves())
    frontier = [tree.root]
    while frontier:
        frontier = asyncio.run(policy.extend(frontier, EVERYTHING))
    for node in tree.nodes[1:]:
        node.scores["arbitrary"] = arbitrary_value(node)
    return tree


@pytest.mark.parametrize("aggregate", ["last", "min", "product", "mean"])
def test_beam_search_of_full_width_finds_the_best_solution(aggregate: Aggregate) -> None:
    for problem in problems(5):
        truth = best_of_n(whole_tree(problem), "arbitrary", aggregate=aggregate)
        tree = new_tree(problem)
        policy = ListingPolicy(random_moves())
        asyncio.run(Beam(width=EVERYTHING, branch=1, aggregate=aggregate)(tree, policy, arbitrary_scorer()))
        found = best_of_n(tree, "arbitrary", aggregate=aggregate)
        assert found is not None
        assert truth is not None
        assert found.text == truth.text


@pytest.mark.parametrize("width", [1, 2, 5])
def test_beam_search_keeps_exactly_the_best_of_each_round(width: int) -> None:
    whole = whole_tree(problems(1)[0])
    firsts = sorted(whole.root.children, key=arbitrary_value, reverse=True)
    expected = {node.text for node in firsts[:width]}
    tree = new_tree(problems(1)[0])
    asyncio.run(Beam(width=width, branch=EVERYTHING)(tree, ListingPolicy(random_moves()), arbitrary_scorer()))
    assert {node.text for node in tree.nodes if node.depth == 1 and node.children} == expected


def test_beam_search_takes_its_numbers_round_by_round() -> None:
    tree = new_tree()
    asyncio.run(Beam(width=(4, 1), branch=(1, 12, 2))(tree, random_policy(), arbitrary_scorer()))
    drawn_at = [sum(node.draws for node in tree.nodes if node.depth == depth) for depth in range(2)]
    firsts = [node for node in tree.root.children if node.open]
    assert drawn_at[0] == 4
    assert drawn_at[1] == 12 // len(firsts) * len(firsts)  # all of them go on, and share the second round
    seconds = [node for node in tree.nodes if node.depth == 2]
    assert [node for node in seconds if node.children] in ([], [max(seconds, key=arbitrary_value)])


def test_beam_search_guided_by_the_oracle_always_solves() -> None:
    for problem in problems(20):
        tree = new_tree(problem)
        asyncio.run(Beam(width=1, branch=EVERYTHING)(tree, ListingPolicy(random_moves()), oracle_scorer()))
        grade(tree, TASK)
        chosen = best_of_n(tree, "oracle")
        assert chosen is not None
        assert chosen.reward == 1.0


def test_beam_search_proposes_width_times_branch_steps_a_round_and_obeys_the_step_limit() -> None:
    tree = new_tree()
    asyncio.run(Beam(width=2, branch=3)(tree, random_policy(), arbitrary_scorer(), sampling=ONE_STEP))
    assert tree.root.draws == 6
    assert {node.step.end for node in tree.nodes[1:]} == {EndReason.STEPS}


def test_best_ranks_unscored_nodes_last_and_keeps_the_order_of_equals() -> None:
    whole = whole_tree(problems(1)[0])
    first, second, third, fourth = whole.root.children[:4]
    for node, value in ((first, 0.1), (second, 0.7), (third, 0.7)):
        node.scores["s"] = value
    assert best([fourth, first, second, third], 3, "s") == [second, third, first]
    assert best([fourth, first], 5, "s") == [first, fourth]


@pytest.mark.parametrize(("n", "wave"), [(1, 8), (8, 8), (10, 4)])
def test_sampling_draws_n_solutions_and_scores_them(n: int, wave: int) -> None:
    tree = new_tree()
    asyncio.run(IndependentSampling(n=n, wave=wave)(tree, random_policy(), arbitrary_scorer()))
    assert sum(leaf.multiplicity for leaf in tree.solutions()) == n
    assert {node for node in tree.nodes if node.scores} == set(tree.solutions())


def test_samples_do_not_depend_on_the_size_of_a_wave() -> None:
    texts = []
    for wave in (1, 3, 12):
        tree = new_tree()
        asyncio.run(IndependentSampling(n=12, wave=wave)(tree, random_policy(noise=0.2)))
        texts.append({leaf.text: leaf.multiplicity for leaf in tree.solutions()})
    assert texts[0] == texts[1] == texts[2]


def test_sampling_scores_whole_paths_if_asked() -> None:
    tree = new_tree()
    asyncio.run(IndependentSampling(n=4, score="steps")(tree, random_policy(), arbitrary_scorer()))
    assert all(path_score(leaf, "arbitrary", "min") is not None for leaf in tree.solutions())


def test_sampling_without_a_number_spends_the_budget() -> None:
    tree = new_tree(limit=2000)
    asyncio.run(IndependentSampling(n=None, wave=4)(tree, random_policy()))
    assert tree.budget.spent
    assert len(tree.solutions()) > 8


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(GradatimError, match=r"set the number of solutions .* or a token budget"):
        asyncio.run(IndependentSampling(n=None)(new_tree(), random_policy()))
    with pytest.raises(GradatimError, match="beam search needs a scorer to guide it"):
        asyncio.run(Beam()(new_tree(), random_policy()))
    for options in ({"width": 0}, {"branch": 0}, {"width": (2, 0)}, {"branch": ()}, {"aggregate": "first"}):
        with pytest.raises(GradatimError, match=f"^Beam: {next(iter(options))}"):
            Beam(**options)  # type: ignore[arg-type]
    with pytest.raises(GradatimError, match=r"^IndependentSampling: wave must be greater than 0, got 0$"):
        IndependentSampling(wave=0)


def test_a_beam_says_of_every_open_step_whether_it_was_expanded_or_pruned_and_why() -> None:
    tree = new_tree()
    asyncio.run(Beam(width=2, branch=3)(tree, random_policy(), arbitrary_scorer()))
    for node in tree.nodes[1:]:
        if node.open:
            note = node.notes[DECISION]
            assert note["decision"] == ("expanded" if node.children else "pruned")
            assert "by arbitrary" in note["why"]
            assert _shown(tree, why=True).count(note["why"])
    assert "pruned" not in _shown(tree, why=False)


def _shown(tree: Tree, *, why: bool) -> str:
    console = Console(width=1000)
    with console.capture() as shown:
        console.print(render(tree, why=why))
    return shown.get()
