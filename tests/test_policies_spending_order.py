"""Who may spend a budget first: what writers are told, and how often they are looked at."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gradatim.budget import POLICY, SCORER, Account, Budget
from gradatim.policies.spending_order import SpendingOrder


@dataclass(eq=False)
class Author:
    """Writes one token at a time, so many in all; counts how often it is asked what it has written."""

    length: int
    may_drop: bool = False
    tokens: int = 0
    asked: int = 0
    allowed: int | None = None
    begins: bool = True
    account: Account = POLICY

    @property
    def written(self) -> int:
        self.asked += 1
        return self.tokens

    @property
    def done(self) -> bool:
        return self.tokens >= self.length

    @property
    def stopped(self) -> bool:
        return self.done or (self.allowed is not None and self.tokens >= self.allowed)


def close(author: Author, allowed: int | None) -> int:
    author.length = author.tokens = author.tokens if allowed is None else min(author.tokens, allowed)
    return author.tokens


@settings(deadline=None)
@example(
    lengths=[(length, False) for length in (2, 5, 7, 8, 0, 8, 5)],
    limit=46,
    room=2,
    others=[0] * 13 + [3] * 4 + [0] * 23,
)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=12),
    limit=st.integers(0, 80),
    room=st.integers(1, 5),
    others=st.lists(st.integers(0, 3), min_size=40, max_size=40),
)
def test_what_writers_are_told_is_the_same_whether_all_are_looked_at_or_not(
    lengths: list[tuple[int, bool]], limit: int, room: int, others: list[int]
) -> None:
    budgets = Budget(limit), Budget(limit)
    orders = [SpendingOrder(budget, close) for budget in budgets]
    lines = [[Author(length, may_drop) for length, may_drop in lengths] for _ in budgets]
    for order, line in zip(orders, lines, strict=True):
        order.ask(line)
    for other in others:  # what someone else, such as a scorer, takes of the budget at each token
        told = []
        for new, budget, order, line in zip((None, 1), budgets, orders, lines, strict=True):
            order.settle([author for author in line if author.done])
            order.allot(new)
            told.append([(author.stopped, author.begins or author.done) for author in line])
            for author in [each for each in line if not each.stopped and each.begins][:room]:
                author.tokens += 1
            budget.take_up_to(SCORER, other)
        assert told[0] == told[1]
    assert [author.tokens for author in lines[0]] == [author.tokens for author in lines[1]]
    assert budgets[0] == budgets[1]


def test_far_from_its_end_a_budget_costs_no_look_at_every_writer_for_every_token() -> None:
    order = SpendingOrder(Budget(1_000_000), close)
    line = [Author(length=500) for _ in range(200)]
    order.ask(line)
    for _ in range(400):
        order.allot(new=1)
        for author in line:
            author.tokens += 1
    assert all(author.asked < 20 for author in line)
