"""Searches that share the draws of a round in another way than a beam: REBASE, DVTS and controlled decoding."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.search import ControlledDecoding, Dvts, Rebase
from gradatim.search.decisions import DECISION
from gradatim.search.ranking import softmax_weights
from gradatim.search.rebase import balanced
from gradatim.tree import EndReason, Node, Problem, Tree
from scripted_countdown import (
    DEEP_PROBLEM,
    FunctionScorer,
    arbitrary_scorer,
    arbitrary_value,
    new_tree,
    problems,
    random_policy,
)

TWO_STEPS = Sampling(max_steps=2)


def test_softmax_shares_by_hand() -> None:
    assert softmax_weights([math.log(1), math.log(2), math.log(5)], 1.0) == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert softmax_weights([0.0, 0.5 * math.log(3)], 0.5, counts=[3, 1]) == pytest.approx([1 / 2, 1 / 2])
    assert softmax_weights([0.2, 0.9, 0.9], 0.0) == [0.0, 1.0, 0.0]
    assert softmax_weights([None, -2.0, None], 1.0) == [0.0, 1.0, 0.0]
    assert softmax_weights([None, None], 1.0) == [0.5, 0.5]
    assert softmax_weights([None, None], 0.0) == [1.0, 0.0]
    assert softmax_weights([1e300, -1e300], 1e-300) == [1.0, 0.0]
    assert softmax_weights([], 1.0) == []


@pytest.mark.parametrize(
    ("weights", "width", "shares"),
    [
        ([0.5, 0.25, 0.25], 4, [2, 1, 1]),
        ([0.25, 0.5, 0.25], 8, [2, 4, 2]),
        ([0.6, 0.3, 0.1], 4, [3, 1, 0]),  # 2.4 up is 3, of 1 left 0.75 up is 1
        ([1 / 3, 1 / 3, 1 / 3], 4, [2, 1, 1]),
        ([0.9, 0.1], 0, [0, 0]),
        ([1.0, 0.0], 3, [3, 0]),
    ],
)
def test_shares_of_the_width_by_hand(weights: list[float], width: int, shares: list[int]) -> None:
    assert balanced(weights, width) == shares


@given(
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda found: sum(found) > 0),
    width=st.integers(0, 60),
)
def test_shares_add_up_and_follow_the_weights(weights: list[float], width: int) -> None:
    shares = balanced(weights, width)
    assert sum(shares) == width
    assert min(shares) >= 0
    total = sum(weights)
    ranked = sorted(zip(weights, shares, strict=True), reverse=True)
    assert all(one >= other - 1 for (_, one), (_, other) in itertools.pairwise(ranked))
    assert ranked[0][1] <= math.ceil(width * ranked[0][0] / total + 1e-6)


def fixed_end(node: Node) -> list[ScriptedStep]:
    """Letters; ``z`` ends the solution."""
    return [ScriptedStep(letter, 0.25) for letter in "abc"] + [ScriptedStep("z", 0.25, EndReason.END_OF_TEXT)]


def letter_value(node: Node) -> float:
    return {"a": 0.9, "b": 0.5, "c": 0.1, "z": 0.7}[node.step.text]


def test_rebase_shares_each_round_by_softmaxed_scores_and_ends_with_width_solutions() -> None:
    for seed in range(5):
        tree = Tree(Problem("letters", "?"), seed=seed)
        search = Rebase(width=20, temperature=0.4)
        asyncio.run(search(tree, ScriptedPolicy(fixed_end, Sampling(max_steps=4)), FunctionScorer(letter_value)))
        closed = [node for node in tree.nodes[1:] if not node.open]
        assert sum(node.multiplicity for node in closed) == 20
        width = 20
        for depth in range(1, 4):
            level = [node for node in tree.nodes if node.depth == depth]
            width -= sum(node.multiplicity for node in level if not node.open)
            steps = [node for node in level if node.open]
            weights = [node.multiplicity * math.exp(letter_value(node) / 0.4) for node in steps]
            assert [node.draws for node in steps] == balanced(weights, width)
            for node in steps:
                assert node.notes[DECISION]["why"] == f"{node.draws} of {width} expansions by function"


def test_rebase_chooses_by_weighted_majority_unless_told_otherwise() -> None:
    tree = new_tree()

    def answer(problem: Problem, text: str) -> str:
        return str(len(text) % 2)

    asyncio.run(Rebase(width=16)(tree, random_policy(), arbitrary_scorer(), answer=answer))
    votes: defaultdict[str | None, float] = defaultdict(float)
    for leaf in tree.solutions():
        votes[leaf.answer] += leaf.scores["arbitrary"] * leaf.multiplicity
    chosen = Rebase().choose(tree, "arbitrary")
    assert chosen is not None
    assert chosen.answer == max(votes, key=lambda key: votes[key])
    best = Rebase(choose_by="score").choose(tree, "arbitrary")
    assert best is not None
    assert best.scores["arbitrary"] == max(leaf.scores["arbitrary"] for leaf in tree.solutions())


def test_subtrees_of_dvts_do_not_compete() -> None:
    """Each of four subtrees goes on from the best of its own draws, though all of one may be better than another's."""
    tree = new_tree(DEEP_PROBLEM)
    drawn: list[Node] = []

    class Recording(ScriptedPolicy):
        async def extend(self, nodes: Any, n: Any = 1, **options: Any) -> list[Node]:
            found = await super().extend(nodes, n, **options)
            drawn.extend(found if nodes == [tree.root] else [])
            return found

    policy = Recording(random_policy().distribution)
    asyncio.run(Dvts(subtrees=4, branch=3)(tree, policy, arbitrary_scorer()))
    own = [drawn[place::4] for place in range(4)]
    chosen = Counter(max(steps, key=arbitrary_value) for steps in own)
    assert {node: node.draws for node in tree.root.children} == {node: 3 * chosen[node] for node in tree.root.children}
    assert len(chosen) > 1
    assert sum(1 for node in tree.root.children if node.notes[DECISION]["decision"] == "expanded") == len(chosen)


def test_a_subtree_ends_when_its_best_proposal_ends_the_solution() -> None:
    tree = Tree(Problem("letters", "?"))
    ending = FunctionScorer(lambda node: float(node.finished))
    asyncio.run(Dvts(subtrees=1, branch=30)(tree, ScriptedPolicy(fixed_end), ending))
    assert {node.depth for node in tree.nodes} == {0, 1}
    tree = Tree(Problem("letters", "?"))
    going_on = FunctionScorer(lambda node: float(node.open))
    asyncio.run(Dvts(subtrees=1, branch=30)(tree, ScriptedPolicy(fixed_end, Sampling(max_steps=4)), going_on))
    assert max(node.depth for node in tree.nodes) == 4


def test_one_chain_at_temperature_0_is_one_subtree() -> None:
    grown = []
    for search in (Dvts(subtrees=1, branch=4), ControlledDecoding(branch=4)):
        trees = [new_tree(problem) for problem in problems(3)]
        for tree in trees:
            asyncio.run(search(tree, random_policy(), arbitrary_scorer()))
        grown.append([tree.to_json() for tree in trees])
    assert grown[0] == grown[1]


def test_blocks_are_drawn_in_proportion_to_the_policy_times_the_tilt() -> None:
    """With many proposals the choice follows p(block) exp(value / temperature)."""
    temperature, runs = 0.4, 250
    found: Counter[str] = Counter()
    policy = ScriptedPolicy(fixed_end, TWO_STEPS)
    for seed in range(runs):
        tree = Tree(Problem("letters", "?"), seed=seed)
        search = ControlledDecoding(branch=24, temperature=temperature)
        asyncio.run(search(tree, policy, FunctionScorer(letter_value)))
        went_on = [node.step.text for node in tree.root.children if node.draws]
        found[went_on[0] if went_on else "z"] += 1
    weights = {
        letter: math.exp(value / temperature) for letter, value in zip("abcz", (0.9, 0.5, 0.1, 0.7), strict=True)
    }
    for letter, weight in weights.items():
        share = weight / sum(weights.values())
        assert found[letter] / runs == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / runs) + 0.02)


def test_a_block_is_as_many_steps_as_asked_for() -> None:
    tree = Tree(Problem("letters", "?"))
    search = ControlledDecoding(branch=3, steps=2, chains=2)
    asyncio.run(search(tree, ScriptedPolicy(fixed_end, Sampling(max_steps=4)), FunctionScorer(letter_value)))
    open_and_scored = {node.depth for node in tree.nodes if node.open and node.scores}
    assert open_and_scored <= {2}
    assert tree.root.draws == 6


@pytest.mark.parametrize("search", [Rebase, Dvts, ControlledDecoding])
def test_nothing_to_guide_by_is_refused_and_no_score_at_all_is_survived(search: Any) -> None:
    with pytest.raises(GradatimError, match="needs a scorer to guide it"):
        asyncio.run(search()(new_tree(), random_policy()))

    class Silent(FunctionScorer):
        async def score(self, nodes: Any) -> None:
            """Says nothing."""

    tree = new_tree()
    asyncio.run(search()(tree, random_policy(), Silent(arbitrary_value)))
    assert tree.solutions()


def test_numbers_that_make_no_sense_are_refused() -> None:
    for search, option in (
        (Rebase, {"width": 0}),
        (Rebase, {"temperature": 0}),
        (Dvts, {"subtrees": 0}),
        (Dvts, {"branch": 0}),
        (ControlledDecoding, {"steps": 0}),
        (ControlledDecoding, {"temperature": -1}),
    ):
        with pytest.raises(GradatimError, match=f"^{search.__name__}: {next(iter(option))}"):
            search(**option)
