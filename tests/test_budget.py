"""A budget counts every token, for each account apart, and never lets more be spent than its limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim import Account, Budget
from gradatim.budget import POLICY, SCORER, Spent

ACCOUNTS = st.sampled_from([POLICY, SCORER, Account("prover", 7), Account("judge")])
REQUESTS = st.lists(st.tuples(st.booleans(), ACCOUNTS, st.integers(0, 50), st.integers(0, 50)), max_size=30)


@given(limit=st.none() | st.integers(0, 300), requests=REQUESTS)
def test_any_sequence_of_requests_adds_up_and_stays_within_the_limit(
    limit: int | None, requests: list[tuple[bool, Account, int, int]]
) -> None:
    budget = Budget(limit)
    expected: dict[str, tuple[int, int]] = {}
    for all_or_nothing, account, read, written in requests:
        tokens = read + written if all_or_nothing else written
        left = tokens if limit is None else limit - sum(map(sum, expected.values()))
        if all_or_nothing:
            assert budget.take(account, read=read, written=written) is (tokens <= left)
            granted = (read, written) if tokens <= left else (0, 0)
        else:
            granted = (0, budget.take_up_to(account, written))
            assert granted[1] == min(written, left)
        before = expected.get(account.name, (0, 0))
        if sum(granted):
            expected[account.name] = (before[0] + granted[0], before[1] + granted[1])
        assert {name: (spent.read, spent.written) for name, spent in budget.accounts.items()} == expected
        assert (budget.read(account.name), budget.written(account.name)) == expected.get(account.name, (0, 0))
        assert budget.total == sum(map(sum, expected.values()))
        if limit is None:
            assert budget.remaining is None
            assert not budget.spent
        else:
            assert budget.total <= limit
            assert budget.remaining == limit - budget.total
            assert budget.spent is (budget.remaining == 0)
    assert Budget.from_json(budget.to_json()) == budget


def test_a_zero_budget_is_spent_from_the_start() -> None:
    budget = Budget(0)
    assert budget.spent
    assert budget.remaining == 0
    assert not budget.take(POLICY, read=1)
    assert budget.take(POLICY)
    assert budget.take_up_to(SCORER, 7) == 0
    assert budget.total == 0


def test_a_limit_lowered_below_what_is_spent_grants_nothing_and_takes_nothing_back() -> None:
    budget = Budget(10, {"policy": Spent(written=8)})
    budget.limit = 5
    assert budget.spent
    assert budget.remaining == 0
    assert budget.take_up_to(POLICY, 3) == 0
    assert budget.total == 8


def test_negative_limits_and_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="negative, got -1"):
        Budget(-1)
    budget = Budget(10, {"scorer": Spent(read=4)})
    with pytest.raises(ValueError, match="given back"):
        budget.take(SCORER, read=-1)
    with pytest.raises(ValueError, match="given back"):
        budget.take_up_to(SCORER, -1)
    assert budget.total == 4


@given(limit=st.none() | st.integers(0, 300), spent=st.integers(0, 300), back=st.integers(0, 300))
def test_what_was_paid_for_and_not_needed_can_be_spent_again(limit: int | None, spent: int, back: int) -> None:
    budget = Budget(limit)
    granted = budget.take_up_to(POLICY, spent)
    back = min(back, granted)
    budget.give_back(POLICY, back)
    assert budget.total == budget.written("policy") == granted - back
    assert budget.take(SCORER, read=back)
    assert budget.total == granted


def test_no_more_can_be_given_back_than_was_spent_on_the_same() -> None:
    budget = Budget(10, {"policy": Spent(read=5, written=3)})
    for tokens in (4, -1):
        with pytest.raises(ValueError, match=f"of 3 tokens spent, {tokens} cannot be given back"):
            budget.give_back(POLICY, tokens)
    assert budget.total == 8


def test_an_account_knows_the_size_of_its_model_as_long_as_it_is_one() -> None:
    budget = Budget()
    for account, size in ((Account("a", 5), 5), (Account("a", 5), 5), (Account("a", 6), None), (Account("a", 6), None)):
        budget.take(account, read=1)
        assert budget.accounts["a"].parameters == size
    assert (Account("a").of_size(5), Account("a", 3).of_size(5)) == (Account("a", 5), Account("a", 3))
