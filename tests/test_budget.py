"""A budget counts every token and never lets more be spent than its limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim import Budget, Spending

REQUESTS = st.lists(st.tuples(st.booleans(), st.sampled_from(Spending), st.integers(0, 50)), max_size=30)


@given(limit=st.none() | st.integers(0, 300), requests=REQUESTS)
def test_any_sequence_of_requests_adds_up_and_stays_within_the_limit(
    limit: int | None, requests: list[tuple[bool, Spending, int]]
) -> None:
    budget = Budget(limit)
    expected = dict.fromkeys(Spending, 0)
    for all_or_nothing, spending, tokens in requests:
        left = tokens if limit is None else limit - sum(expected.values())
        if all_or_nothing:
            assert budget.take(spending, tokens) is (tokens <= left)
            granted = tokens if tokens <= left else 0
        else:
            granted = budget.take_up_to(spending, tokens)
            assert granted == min(tokens, left)
        expected[spending] += granted
        assert {kind: getattr(budget, kind.value) for kind in Spending} == expected
        assert budget.total == sum(expected.values())
        if limit is None:
            assert budget.remaining is None
            assert not budget.spent
        else:
            assert budget.total <= limit
            assert budget.remaining == limit - budget.total
            assert budget.spent is (budget.remaining == 0)
    assert Budget(**budget.to_json()) == budget


def test_a_zero_budget_is_spent_from_the_start() -> None:
    budget = Budget(0)
    assert budget.spent
    assert budget.remaining == 0
    assert not budget.take(Spending.POLICY_PREFILL, 1)
    assert budget.take(Spending.POLICY_PREFILL, 0)
    assert budget.take_up_to(Spending.SCORER_GENERATED, 7) == 0
    assert budget.total == 0


def test_a_limit_lowered_below_what_is_spent_grants_nothing_and_takes_nothing_back() -> None:
    budget = Budget(10, policy_generated=8)
    budget.limit = 5
    assert budget.spent
    assert budget.remaining == 0
    assert budget.take_up_to(Spending.POLICY_GENERATED, 3) == 0
    assert budget.total == 8


def test_negative_limits_and_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="negative, got -1"):
        Budget(-1)
    budget = Budget(10, scorer_prefill=4)
    for request in (budget.take, budget.take_up_to):
        with pytest.raises(ValueError, match="given back"):
            request(Spending.SCORER_PREFILL, -1)
    assert budget.total == 4


@given(limit=st.none() | st.integers(0, 300), spent=st.integers(0, 300), back=st.integers(0, 300))
def test_what_was_paid_for_and_not_needed_can_be_spent_again(limit: int | None, spent: int, back: int) -> None:
    budget = Budget(limit)
    granted = budget.take_up_to(Spending.POLICY_GENERATED, spent)
    back = min(back, granted)
    budget.give_back(Spending.POLICY_GENERATED, back)
    assert budget.total == budget.policy_generated == granted - back
    assert budget.take(Spending.SCORER_PREFILL, back)
    assert budget.total == granted


def test_no_more_can_be_given_back_than_was_spent_on_the_same() -> None:
    budget = Budget(10, policy_generated=3, policy_prefill=5)
    for tokens in (4, -1):
        with pytest.raises(ValueError, match=f"of 3 tokens spent, {tokens} cannot be given back"):
            budget.give_back(Spending.POLICY_GENERATED, tokens)
    assert budget.total == 8
