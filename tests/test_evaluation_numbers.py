"""Metrics, intervals and comparisons against naive computations written here."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim import Account, Budget, EndReason, Problem, Step, Tree
from gradatim.budget import Spent
from gradatim.errors import GradatimError
from gradatim.evaluation import (
    Cost,
    Estimate,
    MethodResult,
    Sample,
    ScoredStates,
    Thresholds,
    accuracy_at,
    accuracy_at_tokens,
    auc,
    best_of_n,
    best_threshold,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_ratio,
    bootstrap_share,
    choose_thresholds,
    estimated_flops,
    first_below,
    first_error_f1,
    majority,
    mean_spending,
    method_result,
    pass_at_k,
    policy_result,
    samples_of,
    scored_states,
    spending_of,
    step_score_result,
    tokens_to_reach,
    weighted_majority,
)
from gradatim.supervision import RightSolutions, SolutionPairs
from gradatim.tasks import Task, Verdict, grade
from gradatim.tasks.countdown import Countdown, make_problem
from gradatim.view.text import mark

samples = st.lists(
    st.builds(
        lambda answer, score: Sample(float(answer == "a"), answer, score),
        st.sampled_from(["a", "b", "c", None]),
        st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    ),
    min_size=1,
    max_size=7,
)


def mean_over_subsets(items: list[Sample], n: int, value: object) -> float:
    assert callable(value)
    return float(np.mean([value(list(subset)) for subset in itertools.combinations(items, n)]))


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_solution(n: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    outcomes = [True] * correct + [False] * (n - correct)
    truth = np.mean([any(subset) for subset in itertools.combinations(outcomes, k)])
    assert pass_at_k(n, correct, k) == pytest.approx(truth)


@given(samples, st.data())
def test_best_of_n_is_the_mean_over_subsets_with_ties_drawn_by_lot(items: list[Sample], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(items)))

    def reward(subset: list[Sample]) -> float:
        top = max(sample.score for sample in subset)
        return float(np.mean([sample.reward for sample in subset if sample.score == top]))

    assert best_of_n(items, n) == pytest.approx(mean_over_subsets(items, n, reward))


@given(samples, st.booleans(), st.data())
@settings(deadline=None)
def test_votes_are_the_mean_over_subsets(items: list[Sample], weighted: bool, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(items)))

    def reward(subset: list[Sample]) -> float:
        votes: dict[str, float] = {}
        for sample in subset:
            if sample.answer is not None:
                votes[sample.answer] = votes.get(sample.answer, 0.0) + (sample.score if weighted else 1.0)
        if not votes:
            return 0.0
        winners = [answer for answer, weight in votes.items() if weight == pytest.approx(max(votes.values()))]
        return float(np.mean([answer == "a" for answer in winners]))

    rule = weighted_majority if weighted else majority
    if weighted and any(  # a vote of no weight at all is a tie of every answer; the naive rule knows only those drawn
        all(sample.score == 0 for sample in subset) for subset in itertools.combinations(items, n)
    ):
        return
    assert rule(items, n) == pytest.approx(mean_over_subsets(items, n, reward))


labelled = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.4, 0.4001, 0.8, 1.0])), min_size=1, max_size=25
)


@given(labelled)
def test_auc_is_the_share_of_ordered_pairs(states: list[tuple[bool, float]]) -> None:
    good = [score for label, score in states if label]
    bad = [score for label, score in states if not label]
    found = auc([label for label, _ in states], [score for _, score in states])
    if not good or not bad:
        assert found is None
    else:
        wins = [1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad]
        assert found == pytest.approx(np.mean(wins))


@given(labelled)
def test_best_threshold_is_the_best_of_all(states: list[tuple[bool, float]]) -> None:
    labels, scores = [label for label, _ in states], [score for _, score in states]
    threshold, accuracy = best_threshold(labels, scores)
    assert accuracy == pytest.approx(accuracy_at(labels, scores, threshold))
    assert accuracy == pytest.approx(max(accuracy_at(labels, scores, cut) for cut in [*scores, math.inf]))


def test_first_error_f1_is_the_harmonic_mean_of_both_accuracies() -> None:
    assert first_below([0.9, 0.4, 0.1], 0.5) == 1
    assert first_below([0.9, 0.5], 0.5) is None
    # wrong solutions: one of two found exactly; right solutions: three of four left alone
    score = first_error_f1([1, 0, None, None, None, 2], [1, 2, None, None, None, None])
    assert (score.error_accuracy, score.correct_accuracy, score.solutions) == (0.5, 0.75, 6)
    assert score.f1 == pytest.approx(2 * 0.5 * 0.75 / 1.25)


def test_first_errors_of_one_kind_of_solutions_have_no_f1() -> None:
    found = first_error_f1([1, 0], [1, 0])
    assert (found.f1, found.error_accuracy, found.correct_accuracy) == (None, 1.0, None)
    passed = first_error_f1([None], [None])
    assert (passed.f1, passed.error_accuracy, passed.correct_accuracy) == (None, None, 1.0)
    assert first_error_f1([0, 0], [1, None]).f1 == 0.0  # both kinds are there, and both are judged wrongly


def test_bootstrap_intervals() -> None:
    generator = np.random.default_rng(0)
    values = generator.random(400)
    estimate = bootstrap_mean(values, seed=3)
    assert estimate == bootstrap_mean(values, seed=3)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < estimate.value < estimate.high
    expected = 1.96 * values.std() / 20  # the normal approximation
    assert (estimate.high - estimate.low) / 2 == pytest.approx(expected, rel=0.08)
    shifted = values + 0.1 + generator.normal(0, 0.01, 400)
    difference = bootstrap_difference(values, shifted)
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low < 0.1 < difference.high
    assert difference.high - difference.low < (estimate.high - estimate.low) / 10  # paired: what is common cancels
    constant = bootstrap_mean([7.0] * 5)  # no shares
    assert (constant.low, constant.value, constant.high) == (7.0, 7.0, 7.0)
    ratio = bootstrap_ratio([10.0, 30.0], [1.0, 1.0])
    assert ratio.value == 20.0
    with pytest.raises(GradatimError, match="no problems"):
        bootstrap_mean([])


def test_no_interval_is_made_up() -> None:
    one = bootstrap_mean([0.125])
    assert one == Estimate(0.125, None, None, 1)
    assert one.fields("x") == {"x": 0.125, "x_interval": None}
    assert f"{one:.1f}" == "0.1"
    some = bootstrap_ratio([10.0, 30.0], [1.0, 0.0])  # in a quarter of the resampled sets nothing is solved
    assert (some.value, some.low, some.high) == (40.0, 10.0, None)
    assert f"{some:.0f}" == "40 [10, unbounded]"
    for estimate in (one, some):
        assert Estimate.from_json(estimate.to_json()) == estimate
        assert Estimate.from_fields(estimate.fields("x"), "x", estimate.n) == estimate
    with pytest.raises(GradatimError, match="all denominators are 0"):
        bootstrap_ratio([10.0, 30.0], [0.0, 0.0])


@pytest.mark.parametrize(("right", "n"), [(0, 5), (0, 50), (1, 50), (20, 50), (49, 50), (300, 300)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_a_proportion_has_the_interval_of_wilson(right: int, n: int, confidence: float) -> None:
    estimate = bootstrap_mean([1.0] * right + [0.0] * (n - right), confidence=confidence)
    assert estimate.value == right / n
    z = {0.9: 1.6448536, 0.95: 1.9599640}[confidence]
    for end in (estimate.low, estimate.high):  # the shares that are z standard errors of their own from what was seen
        assert end is not None
        assert abs(end - right / n) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-6)
    assert estimate.low == pytest.approx(0.0, abs=1e-12) if right == 0 else estimate.low > 0


def test_what_never_happened_has_no_interval_without_width() -> None:
    for estimate in (
        bootstrap_mean([0.0] * 50),
        bootstrap_mean([0.125] + [0.0] * 49),
        bootstrap_share([0] * 50, [3] * 50),
        bootstrap_difference([0.25] * 50, [0.25] * 50),
        bootstrap_difference([1.0] * 50, [1.0] * 50),
    ):
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.value < estimate.high
        assert 0.03 < estimate.high - estimate.low < 0.12
    assert bootstrap_mean([1.0] * 50).high == 1.0
    assert bootstrap_mean([0.0]) == bootstrap_share([0], [3]) == Estimate(0.0, None, None, 1)


def _binary(p: float) -> Callable[[np.random.Generator, int], Any]:
    return lambda random, n: (random.random(n) < p).astype(float)


def _of_eight(a: float, b: float) -> Callable[[np.random.Generator, int], Any]:
    """Shares of right solutions among eight, of problems whose difficulty is drawn from a beta distribution."""
    return lambda random, n: random.binomial(8, random.beta(a, b, n)) / 8


def _few_can_be_solved(random: np.random.Generator, n: int) -> Any:
    return random.binomial(8, 0.5 * (random.random(n) < 0.02)) / 8


@pytest.mark.parametrize("n", [20, 50, 200])
@pytest.mark.parametrize(
    ("draw", "true"),
    [
        (_binary(0.02), 0.02),
        (_binary(0.5), 0.5),
        (_binary(0.98), 0.98),
        (_of_eight(0.2, 2), 0.2 / 2.2),
        (_of_eight(2, 2), 0.5),
        (_of_eight(200, 2), 200 / 202),
        (_few_can_be_solved, 0.01),
    ],
)
def test_intervals_hold_the_truth_about_as_often_as_they_say(
    draw: Callable[[np.random.Generator, int], Any], true: float, n: int
) -> None:
    random = np.random.default_rng(1)
    trials = 150
    held = 0
    for _ in range(trials):
        estimate = bootstrap_mean(draw(random, n), resamples=400)
        assert estimate.low is not None
        assert estimate.high is not None
        held += estimate.low <= true <= estimate.high
    assert held / trials >= 0.86  # of the bootstrap alone, 0.31 to 0.65 where n * p is about 1


@pytest.mark.parametrize(("better", "worse"), [(0.0, 0.0), (0.02, 0.02), (0.1, 0.02), (0.3, 0.2)])
def test_paired_differences_hold_the_truth_about_as_often_as_they_say(better: float, worse: float) -> None:
    random = np.random.default_rng(2)
    held = 0
    for _ in range(150):
        place = random.random(50)
        before = (place >= better).astype(float)  # of the first kind the second policy solves what the first does not
        after = 1.0 - ((place >= better) & (place < better + worse))
        estimate = bootstrap_difference(before, after, resamples=400)
        assert estimate.low is not None
        assert estimate.high is not None
        held += estimate.low <= better - worse <= estimate.high
    assert held / 150 >= 0.88


def test_policy_that_solves_nothing_has_no_cost_of_a_solution() -> None:
    result = policy_result([[Sample(0.0, None)] * 2, [Sample(0.0, "7")] * 2], [10.0, 12.0], counts=[1, 2])
    assert result.tokens_per_solved is None
    assert (result.right, result.solutions) == (0, 4)
    assert json.dumps(result.to_json(), allow_nan=False)


def curve_point(tokens: float, accuracy: float) -> MethodResult:
    return MethodResult("m", "s", Estimate(accuracy, accuracy, accuracy, 10), {"policy": Cost(written=tokens)})


class PartialCredit(Task):
    """A verifier that rewards the share of the tests that pass, and calls right what passes all."""

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        return []

    def answer(self, problem: Problem, text: str) -> str:
        return text

    def check(self, problem: Problem, text: str) -> Verdict:
        return Verdict(float(text), "", correct=float(text) == 1.0)


def graded_tree(*texts: str) -> Tree:
    tree = Tree(Problem("p", "Q?\n"))
    for text in texts:
        tree.add(tree.root, Step((), text, end=EndReason.END_OF_TEXT))
    grade(tree, PartialCredit())
    return tree


def test_partial_credit_is_right_in_no_table() -> None:
    tree = graded_tree("0.75", "0.75", "1.0", "0.25")
    assert [leaf.correct for leaf in tree.leaves()] == [False, True, False]
    samples = samples_of(tree)
    assert [(sample.reward, sample.correct) for sample in samples[:1]] == [(0.75, False)]
    result = policy_result([samples] * 30, [1.0] * 30, counts=[1, 4])
    assert (result.pass_at_1.value, result.right) == (0.25, 30)
    assert result.pass_at_k[1].value == pytest.approx(0.25)
    assert result.pass_at_k[4].value == 1.0
    assert result.majority[4].value == 0.0  # 0.75 has two votes, and is not right
    assert best_of_n([Sample(0.75, "a", 0.9, correct=False), Sample(1.0, "b", 0.1)], 2) == 0.0
    assert [term.ends[0].text for term in RightSolutions()(tree)] == ["1.0"]
    chosen, rejected = zip(*(pair.ends for pair in SolutionPairs()(tree)), strict=True)
    assert {node.text for node in chosen} == {"1.0"}
    assert {node.text for node in rejected} == {"0.75", "0.25"}
    assert [mark(leaf) for leaf in tree.leaves()] == ["✗", "✓", "✗"]


def test_curves_are_interpolated_in_log_tokens_and_never_beyond() -> None:
    curve = [curve_point(400, 0.6), curve_point(100, 0.2)]
    assert accuracy_at_tokens(curve, 200) == pytest.approx(0.4)
    assert accuracy_at_tokens(curve, 100) == 0.2
    assert accuracy_at_tokens(curve, 99) is None
    assert tokens_to_reach(curve, 0.4) == pytest.approx(200)
    assert tokens_to_reach(curve, 0.1) == 100
    assert tokens_to_reach(curve, 0.61) is None


def test_method_results_add_up_and_survive_json() -> None:
    budget = Budget(accounts={"policy": Spent(3, 5, 10), "scorer": Spent(read=8, parameters=2)})
    result = method_result("beam", "prm", [1.0, 0.0], [spending_of(budget), spending_of(Budget())])
    assert result.tokens == 8.0
    assert result.flops == 2.0 * (4 * 10 + 4 * 2) == estimated_flops(result.spending)
    assert MethodResult.from_json(result.to_json()) == result
    with pytest.raises(GradatimError, match="one of each"):
        method_result("beam", "prm", [1.0], [])


def test_any_number_of_accounts_is_summed_and_estimated_apart() -> None:
    budgets = [Budget() for _ in range(3)]
    budgets[0].take(Account("policy", 10), read=3, written=6)
    budgets[1].take(Account("policy", 10), read=3)
    budgets[1].take(Account("judge", 100), read=30, written=3)
    mean = mean_spending([spending_of(budget) for budget in budgets])
    assert mean == {"policy": Cost(2.0, 2.0, 10), "judge": Cost(10.0, 1.0, 100)}
    assert estimated_flops(mean) == 2.0 * (4 * 10 + 11 * 100)
    budgets[2].take(Account("judge", 200), read=3)
    assert mean_spending([spending_of(budget) for budget in budgets])["judge"] == Cost(11.0, 1.0, None)
    assert method_result("m", "s", [1.0] * 3, [spending_of(budget) for budget in budgets]).flops is None


def test_scored_states_hold_the_truth_of_partial_solutions() -> None:
    tree = Tree(make_problem([3, 5, 7, 8], 46))
    good = tree.add(tree.root, Step((1,), " 7 * 5 = 35 | 3 8 35\n"))
    lost = tree.add(good, Step((2,), " 35 * 8 = 280 | 3 280\n"))
    end = tree.add(lost, Step((3,), " 280 - 3 = 277 | 277", end=EndReason.END_OF_TEXT))
    for node, score in [(good, 0.9), (lost, 0.2), (end, 0.1)]:
        node.scores["prm"] = score
    states = scored_states(tree, Countdown(), "prm")
    assert states.labels == (True, False)
    assert states.scores == (0.9, 0.2)
    assert states.solutions == (((0.9, 0.2, 0.1), 1),)
    assert choose_thresholds([states]) == Thresholds(0.9, None), "no right solution, so no first-error F1"
    result = step_score_result("prm", [states], resamples=20)
    assert result.auc is not None
    assert (result.auc.value, result.accuracy, result.states) == (1.0, 1.0, 2)
    assert result.first_error is None, "no right solution, which could pass or not"


def test_each_threshold_is_chosen_for_its_own_figure() -> None:
    """Where most states are bad it is best for the accuracy to call all of them wrong, and not for first errors."""
    wrong, right = ((0.3, 0.05, 0.04), 1), ((0.3, 0.2, 0.25), None)
    problem = ScoredStates((False,) * 8 + (True,), (0.1, 0.2, 0.3, 0.4, 0.5, 0.3, 0.2, 0.1, 0.3), (wrong, right))
    chosen = choose_thresholds([problem])
    assert chosen == Thresholds(None, 0.2), "of 0.05 < threshold <= 0.2 the score that occurs"
    result = step_score_result("prm", [problem], thresholds=chosen, choice="How.", resamples=20)
    assert (result.threshold, result.first_error_threshold) == (0.5, 0.2)
    assert result.first_error is not None
    assert result.first_error.f1 == 1.0
    assert (result.to_json()["first_error_threshold"], result.to_json()["thresholds"]) == (0.2, "How.")
    at_a_half = step_score_result("prm", [problem], resamples=20).first_error
    assert at_a_half is not None
    assert at_a_half.f1 == 0.0, "what one threshold for both figures comes to"
    assert choose_thresholds([]) == Thresholds()
