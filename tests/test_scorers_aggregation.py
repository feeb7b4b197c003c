"""How the score of a solution is made of those of its steps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.scorers.aggregation import AGGREGATES, Aggregate, solution_score

PROBABILITIES = st.lists(st.floats(0.001, 0.999), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("last", 0.6),
        ("min", 0.2),
        ("product", 0.8 * 0.2 * 0.6),
        ("mean", 1.6 / 3),
        ("log_odds", math.log(4) + math.log(0.25) + math.log(1.5)),
        ("softmin", (0.8 * math.exp(-6) + 0.2 + 0.6 * math.exp(-4)) / (math.exp(-6) + 1 + math.exp(-4))),
    ],
)
def test_steps_are_aggregated(aggregate: Aggregate, expected: float) -> None:
    assert solution_score([0.8, 0.2, 0.6], aggregate) == pytest.approx(expected)


@given(PROBABILITIES, st.floats(0.001, 0.999), st.sampled_from(AGGREGATES))
def test_a_better_last_step_never_lowers_what_is_no_soft_minimum(
    scores: list[float], other: float, aggregate: Aggregate
) -> None:
    low, high = sorted([scores[-1], other])
    if aggregate != "softmin":
        better, worse = ([*scores[:-1], end] for end in (high, low))
        assert solution_score(better, aggregate) >= solution_score(worse, aggregate) - 1e-12


@given(PROBABILITIES)
def test_a_soft_minimum_lies_between_the_least_and_the_mean(scores: list[float]) -> None:
    assert min(scores) - 1e-12 <= solution_score(scores, "softmin") <= sum(scores) / len(scores) + 1e-12


@given(PROBABILITIES.filter(lambda scores: len(scores) > 1))
def test_log_odds_rank_as_the_posterior_of_independent_judgements(scores: list[float]) -> None:
    right, wrong = math.prod(scores), math.prod(1 - score for score in scores)
    assert 1 / (1 + math.exp(-solution_score(scores, "log_odds"))) == pytest.approx(right / (right + wrong))


def test_certain_scores_have_finite_log_odds() -> None:
    assert solution_score([0.0, 1.0], "log_odds") == pytest.approx(0.0, abs=1e-9)


def test_what_is_no_probability_has_no_odds() -> None:
    with pytest.raises(GradatimError, match=r"1\.5 is no probability"):
        solution_score([1.5], "log_odds")
