"""Resampling is unbiased whatever the scheme, and so is what particles say of the policy's solutions."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.search import Particles
from gradatim.search.decisions import DECISION
from gradatim.search.particles import NORMALISER, SAMPLE
from gradatim.search.resampling import Scheme, effective_size, resample
from gradatim.tree import EndReason, Node, Problem, Tree
from scripted_countdown import DEEP_PROBLEM, FunctionScorer, new_tree, random_policy

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
WEIGHTS = st.lists(st.floats(0, 1e3), min_size=1, max_size=8).filter(lambda weights: sum(weights) > 0)


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=60, deadline=None)
@given(weights=WEIGHTS, count=st.integers(1, 20), seed=st.integers(0, 99))
def test_copies_add_up_and_stay_where_the_scheme_holds_them(
    scheme: Scheme, weights: list[float], count: int, seed: int
) -> None:
    copies = resample(weights, count, scheme, random.Random(seed))
    assert sum(copies) == count
    assert all(number == 0 for number, weight in zip(copies, weights, strict=True) if weight == 0)
    expected = [count * weight / math.fsum(weights) for weight in weights]
    for number, mean in zip(copies, expected, strict=True):
        if scheme == "systematic":
            assert math.floor(mean - 1e-6) <= number <= math.ceil(mean + 1e-6)
        if scheme == "stratified":
            assert mean - 2 < number < mean + 2
        if scheme == "residual":
            assert number >= math.floor(mean - 1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_expected_number_of_copies_is_the_share_of_the_weight(scheme: Scheme) -> None:
    weights, count, runs = [0.1, 2.0, 0.0, 0.7, 0.2], 7, 4000
    generator = random.Random(0)
    drawn = [resample(weights, count, scheme, generator) for _ in range(runs)]
    for place, weight in enumerate(weights):
        copies = [each[place] for each in drawn]
        error = statistics.pstdev(copies) / math.sqrt(runs)
        assert abs(statistics.fmean(copies) - count * weight / 3.0) <= 4 * error + 1e-9


def test_what_has_whole_expected_numbers_is_no_chance_but_for_the_multinomial_scheme() -> None:
    for scheme in SCHEMES[1:]:
        assert {tuple(resample([1, 2, 1], 4, scheme, random.Random(seed))) for seed in range(20)} == {(1, 2, 1)}
    assert len({tuple(resample([1, 2, 1], 4, "multinomial", random.Random(seed))) for seed in range(20)}) > 3


def test_weights_that_make_no_sense_are_refused() -> None:
    for weights in ([0.0, 0.0], [-1.0, 2.0], [math.inf], [math.nan]):
        with pytest.raises(ValueError, match="positive, finite sum"):
            resample(weights, 3, "systematic", random.Random(0))


def test_the_effective_size_goes_from_one_to_all() -> None:
    assert effective_size([0.0, 3.0, 0.0]) == pytest.approx(1)
    assert effective_size([1e-200] * 5) == pytest.approx(5)
    assert effective_size([1.0, 2.0]) == pytest.approx(9 / 5)


# A policy whose solutions can be listed: letters, of which "c" ends a solution and any third letter does

LETTERS = {"a": 0.5, "b": 0.3, "c": 0.2}
VALUE = {"a": 0.9, "b": 0.2, "c": 0.6}


def letters(node: Node) -> list[ScriptedStep]:
    last = node.depth == 2
    return [
        ScriptedStep(letter, share, EndReason.END_OF_TEXT if last or letter == "c" else EndReason.BOUNDARY)
        for letter, share in LETTERS.items()
    ]


def three_letters(node: Node) -> list[ScriptedStep]:
    end = EndReason.END_OF_TEXT if node.depth == 2 else EndReason.BOUNDARY
    return [ScriptedStep(letter, share, end) for letter, share in LETTERS.items()]


def value(node: Node) -> float:
    return of_text(node.text)


def of_text(text: str) -> float:
    """Of its last letter, less for every other one; nothing for what has ``bb``."""
    return 0.0 if "bb" in text else VALUE[text[-1]] * 0.7 ** len(set(text[:-1]))


def solutions(whole: bool) -> dict[str, float]:
    """All solutions with their probabilities."""
    found = {"": 1.0}
    for _ in range(3):
        longer: dict[str, float] = {}
        for text, share in found.items():
            if text.endswith("c") and not whole:
                longer[text] = share
            else:
                longer |= {text + letter: share * each for letter, each in LETTERS.items()}
        found = longer
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("below", [0.0, 0.6, 1.0])
def test_twists_estimate_the_expected_value_of_solutions_without_bias(scheme: Scheme, below: float) -> None:
    """Against all solutions, of different lengths, whatever the twists of what comes before."""
    truth = sum(share * of_text(text) for text, share in solutions(whole=False).items())
    search = Particles(particles=5, weights="twist", temperature=1.0, scheme=scheme, resample_below=below)
    assert_estimates(search, ScriptedPolicy(letters), truth)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_softmax_weights_estimate_the_product_of_all_potentials_without_bias(scheme: Scheme) -> None:
    truth = sum(
        share * math.exp(sum(of_text(text[:end]) for end in (1, 2, 3)) / 0.5)
        for text, share in solutions(whole=True).items()
    )
    search = Particles(particles=5, temperature=0.5, scheme=scheme)
    assert_estimates(search, ScriptedPolicy(three_letters), truth)


def assert_estimates(search: Particles, policy: ScriptedPolicy, truth: float, runs: int = 150) -> None:
    estimates = []
    for seed in range(runs):
        tree = Tree(Problem("letters", "?"), seed=seed)
        asyncio.run(search(tree, policy, FunctionScorer(value)))
        found = tree.metadata[NORMALISER]
        estimates.append(0.0 if found is None else math.exp(found))
    error = statistics.pstdev(estimates) / math.sqrt(runs)
    assert 0 < error < 0.2 * truth
    assert abs(statistics.fmean(estimates) - truth) < 3.5 * error


def test_sweeps_of_particle_gibbs_come_nearer_to_solutions_in_proportion_to_their_worth() -> None:
    worth = {text: share * of_text(text) ** 4 for text, share in solutions(whole=False).items()}

    def distance(sweeps: int, runs: int = 150) -> float:
        search = Particles(particles=8, weights="twist", temperature=0.25, sweeps=sweeps)
        found: Counter[str] = Counter()
        for seed in range(runs):
            tree = Tree(Problem("letters", "?"), seed=seed)
            asyncio.run(search(tree, ScriptedPolicy(letters), FunctionScorer(value)))
            found[tree.nodes[tree.metadata[SAMPLE]].text] += 1
        return sum(abs(found[text] / runs - each / sum(worth.values())) for text, each in worth.items()) / 2

    assert distance(8) < 0.15 < 0.25 < distance(1)


@pytest.mark.parametrize("limit", [0, 40, 150, 400, None])
@pytest.mark.parametrize("particles", [1, 6])
def test_sweeps_end_with_the_budget_and_one_particle_alone_draws_once(limit: int | None, particles: int) -> None:
    tree = new_tree(limit=limit)
    search = Particles(particles=particles, sweeps=4, scheme="residual")
    asyncio.run(search(tree, random_policy(noise=0.1), FunctionScorer(lambda node: 0.5)))
    assert limit is None or tree.budget.total <= limit
    if limit is None:
        assert tree.root.draws == particles + 3 * (particles - 1)  # the one that is kept is not drawn
        assert tree.nodes[tree.metadata[SAMPLE]].finished


def test_a_swarm_without_any_weight_goes_on_and_says_so() -> None:
    tree = new_tree()
    asyncio.run(Particles(particles=4, weights="twist")(tree, random_policy(), FunctionScorer(lambda node: 0.0)))
    assert tree.metadata[NORMALISER] is None
    assert tree.solutions()


def test_draws_go_where_the_copies_are_and_nodes_say_so() -> None:
    tree = new_tree()
    asyncio.run(Particles(particles=8)(tree, random_policy(), FunctionScorer(lambda node: (node.id * 7 % 10) / 10)))
    for node in tree.nodes[1:]:
        if node.open:
            note = node.notes[DECISION]
            assert note["decision"] == ("expanded" if node.draws else "pruned")
            assert note["why"].startswith(f"{node.draws} of 8 particles")
    assert tree.root.draws == 8


def test_scores_that_are_no_twists_are_refused_and_missing_ones_rank_last() -> None:
    with pytest.raises(GradatimError, match=r"twists need scores of 0 or more, but 'function' gave -1"):
        asyncio.run(Particles(weights="twist")(new_tree(), random_policy(), FunctionScorer(lambda node: -1.0)))
    with pytest.raises(GradatimError, match="particle filtering needs a scorer to guide it"):
        asyncio.run(Particles()(new_tree(), random_policy()))

    class Half(FunctionScorer):
        async def score(self, nodes: list[Node]) -> None:  # type: ignore[override]
            await super().score([node for node in nodes if node.id % 2])

    tree = new_tree()
    asyncio.run(Particles(particles=8)(tree, random_policy(), Half(lambda node: 0.5), sampling=Sampling(max_steps=2)))
    assert all(node.id % 2 for node in tree.nodes[1:] if node.children)


@pytest.mark.parametrize("seed", range(12))
def test_a_solution_whose_way_was_worth_nothing_may_be_held(seed: int) -> None:
    """Where all particles have the weight 0 they go on, so the solution that is held may have such a step."""
    worth = FunctionScorer(lambda node: float(random.Random(f"{seed} {node.text}").random() < 0.3))
    tree = new_tree(DEEP_PROBLEM, seed=seed)
    asyncio.run(Particles(particles=4, weights="twist", sweeps=6)(tree, random_policy(), worth))
    assert tree.solutions()
