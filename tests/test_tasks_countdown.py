"""Countdown: the generator, the verifier and the exact oracle."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.tasks.base import Task
from gradatim.tasks.countdown import (
    Countdown,
    Rejection,
    apply_move,
    count_ways,
    legal_moves,
    make_problem,
    parse_problem,
    render_solution,
    render_step,
)
from gradatim.tasks.countdown_tokenizer import make_countdown_tokenizer
from gradatim.tasks.truth import Reachability, StepTruth, state_truth
from gradatim.tree import Problem

TASK = Countdown()
PROBLEM = make_problem([3, 5, 7, 8], 46)
SOLUTION = " 7 * 5 = 35 | 3 8 35\n 35 + 8 = 43 | 3 43\n 43 + 3 = 46 | 46"


def brute_force(numbers: tuple[int, ...], target: int) -> set[tuple[tuple[str, int], ...]]:
    """All right solutions as sequences of (canonical move, result), written without the task's own code."""
    if len(numbers) == 1:
        return {()} if numbers[0] == target else set()
    found = set()
    for i, j in itertools.permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = [numbers[k] for k in range(len(numbers)) if k not in (i, j)]
        results = [("+", a + b), ("*", a * b)]
        if a >= b:
            results.append(("-", a - b))
        if b != 0 and a % b == 0:
            results.append(("/", a // b))
        for operator, result in results:
            pair = sorted((a, b)) if operator in "+*" else [a, b]
            for further in brute_force(tuple(sorted([*rest, result])), target):
                found.add(((f"{pair[0]}{operator}{pair[1]}", result), *further))
    return found


numbers_and_target = st.tuples(st.lists(st.integers(1, 12), min_size=2, max_size=3), st.integers(0, 60))


@given(numbers_and_target)
@settings(max_examples=150, deadline=None)
def test_oracle_counts_exactly_what_brute_force_finds(case: tuple[list[int], int]) -> None:
    numbers, target = case
    assert count_ways(tuple(sorted(numbers)), target) == len(brute_force(tuple(sorted(numbers)), target))


def test_oracle_counts_four_numbers_with_equal_ones_and_zero() -> None:
    for numbers, target in [((2, 2, 3, 3), 0), ((1, 1, 1, 1), 1), ((4, 4, 6, 10), 24)]:
        assert count_ways(numbers, target) == len(brute_force(numbers, target)) > 0


def test_ways_sum_over_the_next_steps() -> None:
    problem = make_problem([4, 6, 9, 2], 30)
    numbers, _ = parse_problem(problem)
    steps = [render_step(move, apply_move(tuple(sorted(numbers)), move)) + "\n" for move in legal_moves(numbers)]
    assert len(set(steps)) == len(steps)
    assert TASK.ways(problem, "") == sum(TASK.ways(problem, step) for step in steps) > 0


def test_partial_solutions_are_known_to_be_good_or_lost() -> None:
    assert TASK.reachable(PROBLEM, "")
    assert TASK.reachable(PROBLEM, " 7 * 5 = 35 | 3 8 35\n")
    assert TASK.reachable(PROBLEM, SOLUTION)
    assert TASK.ways(PROBLEM, SOLUTION) == 1
    lost = " 8 * 7 = 56 | 3 5 56\n 56 * 5 = 280 | 3 280\n"
    assert not TASK.reachable(PROBLEM, lost)
    steps = [" 7 * 5 = 35 | 3 8 35\n", " 35 * 8 = 280 | 3 280\n", " 280 - 3 = 277 | 277"]
    assert TASK.first_error(PROBLEM, steps) == 1
    assert TASK.first_error(PROBLEM, TASK.boundary.split(SOLUTION)) is None


def test_right_solution_is_rewarded() -> None:
    for text in (SOLUTION, SOLUTION + "\n"):
        verdict = TASK.check(PROBLEM, text)
        assert (verdict.reward, verdict.reason) == (1.0, "correct")
        assert TASK.answer(PROBLEM, text) == "35 + 8 = 43; 43 + 3 = 46; 7 * 5 = 35"
    flipped = " 5 * 7 = 35 | 8 35 3\n 8 + 35 = 43 | 43 3\n 43 + 3 = 46 | 46"
    assert TASK.check(PROBLEM, flipped) == TASK.check(PROBLEM, SOLUTION)
    assert TASK.answer(PROBLEM, flipped) == TASK.answer(PROBLEM, SOLUTION)
    wrong = " 7 * 5 = 35 | 3 8 35\n 35 + 8 = 46 | 3 46\n 46 + 3 = 46 | 46"
    assert TASK.answer(PROBLEM, wrong) == "35 + 8 = 46; 46 + 3 = 46; 7 * 5 = 35"
    assert TASK.answer(PROBLEM, "seven") is None


@pytest.mark.parametrize(
    ("text", "rejection", "detail"),
    [
        ("", Rejection.UNFINISHED, "3 5 7 8 are still left"),
        (" 7 * 5 = 35 | 3 8 35\n", Rejection.UNFINISHED, "3 8 35 are still left"),
        (" 7 * 5 = 36 | 3 8 36\n", Rejection.WRONG_ARITHMETIC, "7 * 5 is 35 and not 36 (step 1)"),
        (" 3 - 5 = 2 | 2 7 8\n", Rejection.WRONG_ARITHMETIC, "3 - 5 is not a non-negative integer"),
        (" 8 / 3 = 2 | 2 5 7\n", Rejection.WRONG_ARITHMETIC, "8 / 3 is not a non-negative integer"),
        (" 7 * 9 = 63 | 3 5 63\n", Rejection.NUMBER_NOT_AVAILABLE, "9 is not among 3 5 7 8"),
        (" 7 * 7 = 49 | 3 5 49\n", Rejection.NUMBER_NOT_AVAILABLE, "7 is not among 3 5 7 8"),
        (" 7 * 5 = 35 | 3 35\n", Rejection.WRONG_REMAINDER, "3 8 35 are left and not 3 35"),
        (" 7 * 5 = 35 | 3 8 36\n", Rejection.WRONG_REMAINDER, "3 8 35 are left"),
        ("seven times five\n", Rejection.WRONG_FORMAT, "'seven times five'"),
        (" 7 * 5 = 35 | 3 8 35\nok\n", Rejection.WRONG_FORMAT, "(step 2)"),
        (" 7 * 5 = 35 | 3 8 35\n 35 + 8 = 43 | 3 43\n 43 - 3 = 40 | 40", Rejection.TARGET_MISSED, "40 instead of 46"),
        (SOLUTION + "\n 46 + 0 = 46 | 46", Rejection.NUMBER_NOT_AVAILABLE, "0 is not among 46"),
    ],
)
def test_every_rejection_has_a_reason(text: str, rejection: Rejection, detail: str) -> None:
    verdict = TASK.check(PROBLEM, text)
    assert verdict.reward == 0.0
    assert verdict.reason.startswith(rejection.value)
    assert detail in verdict.reason


pieces = st.sampled_from(
    [" 7 * 5 = 35 | 3 8 35\n", " 3", " *", " 5", " =", " 15", " |", " 7 8", "\n", " 99999999999", "\r", "é"]
)


@given(st.text(max_size=60) | st.lists(pieces, max_size=25).map("".join))
@settings(max_examples=300, deadline=None)
def test_verifier_never_raises_and_splitting_loses_nothing(text: str) -> None:
    verdict = TASK.check(PROBLEM, text)
    assert verdict.reward in (0.0, 1.0)
    assert (verdict.reason == "correct") == (verdict.reward == 1.0)
    assert "".join(TASK.boundary.split(text)) == text


def demonstrations(task: Countdown, split: str, count: int) -> Iterator[tuple[Problem, str]]:
    return itertools.islice(task.demonstrations(split), count)


def test_demonstrations_are_right_and_within_the_difficulty() -> None:
    task = Countdown(numbers=5, largest_number=9, largest_target=40, largest_result=60)
    for problem, solution in demonstrations(task, "train", 300):
        numbers, target = parse_problem(problem)
        assert len(numbers) == 5
        assert max(numbers) <= 9
        assert 1 <= target <= 40
        assert task.check(problem, solution).reward == 1.0
        results = [int(line.split("=")[1].split("|")[0]) for line in solution.splitlines()]
        assert max(results) <= 60


def test_splits_are_disjoint_stable_and_without_repeats() -> None:
    task = Countdown(numbers=3, largest_number=12, largest_target=60)
    states = {}
    for split in ("train", "validation", "test"):
        problems = task.problems(split, 400)
        assert task.problems(split, 50) == problems[:50]
        assert problems != Countdown(numbers=3, largest_number=12, largest_target=60, seed=1).problems(split, 400)
        states[split] = {(tuple(sorted(parse_problem(p)[0])), parse_problem(p)[1]) for p in problems}
        assert len(states[split]) == 400
    other_seed = Countdown(numbers=3, largest_number=12, largest_target=60, seed=7).problems("test", 400)
    elsewhere = {(tuple(sorted(parse_problem(p)[0])), parse_problem(p)[1]) for p in other_seed}
    assert not states["train"] & (states["test"] | elsewhere)
    assert not states["train"] & states["validation"]
    assert not states["validation"] & (states["test"] | elsewhere)


def test_more_problems_than_there_are_is_an_error() -> None:
    with pytest.raises(GradatimError, match="found only"):
        Countdown(numbers=2, largest_number=3, largest_target=5).problems("train", 1000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Countdown(numbers=1), "numbers must be greater than or equal to 2, got 1"),
        (lambda: Countdown(largest_target=300), "largest_result of at least"),
        (lambda: TASK.problems("dev", 3), "there is no 'dev'"),
        (lambda: TASK.problems("train"), "say how many"),
        (lambda: TASK.problems("train", 0), "at least one"),
        (lambda: TASK.check(Problem("x", "What is 1 + 1?"), ""), "not a countdown problem"),
    ],
)
def test_bad_requests_are_explained(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(GradatimError, match=message):
        make()


def test_tokenizer_is_lossless_and_has_one_token_a_word() -> None:
    tokenizer = make_countdown_tokenizer(200)
    for problem, solution in demonstrations(TASK, "train", 50):
        text = problem.prompt + solution
        tokens = tokenizer(text)["input_ids"]
        assert tokenizer.decode(tokens) == text
        assert tokenizer.unk_token_id not in tokens
        assert len(tokens) == len(text.replace("\n", " ; ").split()) + problem.prompt.count(":")
    steps = render_solution((3, 5), [move for move in legal_moves((3, 5)) if move.operator == "*"])
    assert len(tokenizer(steps)["input_ids"]) == 7


def test_countdown_knows_what_can_be_reached_and_where_it_first_cannot() -> None:
    assert isinstance(TASK, Task)
    assert isinstance(TASK, Reachability)
    assert isinstance(TASK, StepTruth)
    truth = state_truth(TASK)
    assert truth is not None
    assert (truth.name, truth.holds(PROBLEM, SOLUTION)) == ("reachable", True)


@pytest.mark.parametrize(("least", "most"), [(1, 6), (12, 21), (33, None)])
def test_difficulty_by_ways_takes_the_problems_of_the_same_stream_that_have_so_many(
    least: int, most: int | None
) -> None:
    chosen = Countdown(seed=1, least_ways=least, most_ways=most).problems("test", 10)
    everything = Countdown(seed=1).problems("test", 200)
    expected = [
        problem
        for problem in everything
        if least <= Countdown().ways(problem, "") and (most is None or Countdown().ways(problem, "") <= most)
    ]
    assert chosen[: len(expected)] == expected[:10]


def test_no_ways_that_contradict_each_other() -> None:
    with pytest.raises(GradatimError, match="most_ways of at least least_ways"):
        Countdown(least_ways=3, most_ways=2)
