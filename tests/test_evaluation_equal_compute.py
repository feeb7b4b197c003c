"""Curves at equal compute against computations that are slow and plain."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.evaluation.bootstrap import Estimate
from gradatim.evaluation.compare import Cost
from gradatim.evaluation.equal_compute import (
    Curve,
    Difference,
    Point,
    corrected,
    curve,
    differences,
    frontier,
    seed_deviation,
    sign_flip_test,
)


def point(tokens: float, *seeds: list[float], size: int | None = None) -> Point:
    return Point(np.array(seeds, dtype=float), {"policy": Cost(written=tokens)}, None, size)


def line(name: str, *points: tuple[float, list[float]]) -> Curve:
    return curve(name, "none", [point(tokens, solved) for tokens, solved in points])


def test_between_two_points_each_problem_is_interpolated_in_the_logarithm_of_the_tokens() -> None:
    found = line("a", (400, [1, 1, 0]), (100, [0, 1, 0])).at(200)
    assert found is not None
    assert found == pytest.approx([0.5, 1, 0])


def test_nothing_is_extrapolated() -> None:
    both = line("a", (100, [0, 1]), (400, [1, 1]))
    assert both.at(99) is None
    assert both.at(401) is None
    assert both.at(100) is not None
    assert both.tokens_for(1.0) == 400
    assert both.tokens_for(0.75) == pytest.approx(200)
    assert both.tokens_for(0.2) == 100
    assert line("b", (100, [0, 1])).tokens_for(0.6) is None


def test_a_curve_against_itself_differs_nowhere() -> None:
    both = line("a", (100, [0, 1, 0, 1] * 6), (400, [1, 1, 0, 1] * 6))
    for test in differences(both, both):
        assert test.difference.value == 0
        assert test.p == 1
        assert test.verdict == "undecided"


def test_a_difference_is_paired_over_problems_at_the_tokens_of_the_method() -> None:
    reference = line("reference", (100, [0, 1] * 20), (400, [0, 1] * 20))
    better = line("better", (200, [1, 1] * 20), (800, [1, 1] * 20))
    (test,) = corrected(differences(better, reference))  # at 800 the reference was not measured
    assert (test.tokens, test.difference.value, test.verdict) == (200, 0.5, "better")
    assert test.reference_tokens is None
    (test,) = corrected(differences(reference, line("other", (100, [1, 1] * 20))))
    assert test.verdict == "worse"


def test_other_problems_are_not_compared() -> None:
    with pytest.raises(GradatimError, match="same problems"):
        differences(line("a", (100, [1.0])), line("b", (100, [1.0, 0.0])))


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=9))
@settings(max_examples=25, deadline=None)
def test_flipping_signs_at_random_comes_near_all_flips(changes: list[float]) -> None:
    values = np.array(changes)
    totals = [abs(np.dot(signs, values)) for signs in product([-1, 1], repeat=len(values))]
    exact = float(np.mean([total >= abs(values.sum()) - 1e-12 for total in totals]))
    assert sign_flip_test(values) == pytest.approx(exact, abs=0.03)


def test_many_tests_are_corrected_as_holm_has_it() -> None:
    estimate = Estimate(0.1, 0.05, 0.15, 100)
    tests = [Difference("m", "r", 1.0, estimate, p, None) for p in (0.01, 0.04, 0.03, 0.005)]
    assert [test.corrected for test in corrected(tests)] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [test.verdict for test in corrected(tests)] == ["better", "undecided", "undecided", "better"]
    assert corrected([]) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=8))
def test_on_the_frontier_is_what_nothing_as_cheap_matches(points: list[tuple[int, int]]) -> None:
    curves = [line(str(place), (tokens, [solved / 4])) for place, (tokens, solved) in enumerate(points)]
    found = {(kept.tokens, float(kept.by_problem.mean()) * 4) for _, kept in frontier(curves)}
    expected = {
        (tokens, solved)
        for tokens, solved in points
        if not any((other, more) != (tokens, solved) and other <= tokens and more >= solved for other, more in points)
    }
    assert found == expected


def test_seeds_are_averaged_problem_by_problem_and_their_spread_is_told() -> None:
    both = point(10, [0, 1, 1, 1], [1, 1, 0, 0])
    assert both.by_problem == pytest.approx([0.5, 1, 0.5, 0.5])
    assert seed_deviation(both) == pytest.approx(np.std([0.75, 0.5], ddof=1))
    assert seed_deviation(point(10, [0, 1])) is None
