"""A continuation of a node that a server is asked to write."""

from __future__ import annotations

from dataclasses import dataclass

from gradatim.budget import Account
from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.policies.draws import distinct_draws, steps_to_write
from gradatim.policies.server.answers import CUT_OFF, Answer
from gradatim.policies.server.division import Division, Look
from gradatim.policies.server.endpoint import Question
from gradatim.text.solution_end import Ending
from gradatim.tree import EndReason, Node

UNBOUNDED = 1 << 62


@dataclass(slots=True, eq=False)
class Draft:
    """One continuation of a node; a :class:`gradatim.policies.spending_order.Writer`.

    Attributes:
        node: what it continues.
        keys: of the draws that it stands for; several where all would be the same.
        seed: of its first request.
        sampling: how it is sampled.
        account: what it is charged to.
        one_step: whether one step is asked for.
        limit: tokens after which it is cut off.
        begin: its division before anything is written.
        division: its steps so far.
        tokens: written so far, as far as they go into its limit.
        written: what they cost.
        most: what they may cost at most. Where the server neither counts nor shows tokens one by one, they may be more
            than its events; and an end of the text may be a token that is not counted.
        reach: so many tokens it would have at most, had each request been answered to its end.
        refused: so many it would have had in the largest request that did not fit the context.
        rounds: requests so far whose answer is part of it.
        most_tokens: that fit the context in one request, as far as it is known.
        bound: whether the server cut an answer off since the budget was to have no more.
        stopped: whether it has all that the budget may have for it, and was not at its end.
        error: why it came to nothing.
        done: whether nothing more will be written.
        settled: whether it was charged.
        allowed, begins: see :class:`gradatim.policies.spending_order.Writer`.
    """

    node: Node
    keys: list[int]
    seed: int
    sampling: Sampling
    account: Account
    one_step: bool
    limit: int
    begin: Division
    division: Division
    tokens: int = 0
    written: int = 0
    most: int = 0
    reach: int = 0
    refused: int = 0
    rounds: int = 0
    most_tokens: int = UNBOUNDED
    bound: bool = False
    stopped: bool = False
    error: GradatimError | None = None
    done: bool = False
    settled: bool = False
    allowed: int | None = None
    begins: bool = True

    @property
    def may_drop(self) -> bool:
        return self.sampling.may_drop and not self.division.done

    @property
    def has_all(self) -> bool:
        """Whether nothing more is to be asked for, as far as is known."""
        return self.division.done or self.stopped or self.error is not None

    @property
    def wanted(self) -> int:
        """Tokens that the next request may ask for, if the budget has them."""
        return max(1, min(self.limit - self.tokens, self.most_tokens))

    def question(self, max_tokens: int) -> Question:
        """The next request for it."""
        return Question(
            problem=self.node.tree.problem,
            solution=self.node.text + self.division.text,
            max_tokens=max_tokens,
            sampling=self.sampling,
            seed=(self.keys[0] + self.rounds if self.rounds else self.seed) % 2**31,
            one_step=self.one_step,
            wanted=lambda: not self.settled,
        )

    def is_what_it_would_be(self, left: int) -> bool:
        """Whether it would be the same if exactly ``left`` tokens had been permitted from the beginning."""
        if self.refused > left or (self.bound and self.reach < left):
            return False
        if self.error is not None:
            return self.most < left
        return min(self.most, self.reach) <= left

    def begin_again(self) -> None:
        """Forget what was written."""
        self.division = self.begin.fork()
        self.tokens = self.written = self.most = self.reach = self.refused = self.rounds = 0
        self.most_tokens, self.bound, self.stopped, self.error = UNBOUNDED, False, False, None

    def drop(self) -> None:
        """Have no result: it lies beyond the budget."""
        self.begin_again()

    def cut_off(self) -> None:
        """End where the budget does, if it was not at its end."""
        if self.error is None:
            self.division.finish(EndReason.LENGTH if self.division.full else EndReason.BUDGET)


def drafts_below(node: Node, n: int, steps: int | None, sampling: Sampling, account: Account) -> list[Draft]:
    """The drafts for ``n`` draws of so many steps below ``node``; one stands for all where they are alike."""
    room, closing = steps_to_write(node, steps, sampling)
    begin = Division(sampling.boundary, sampling.max_step_tokens, room, closing, _look(node, sampling))
    return [
        Draft(
            node=node,
            keys=keys,
            seed=keys[0],
            sampling=sampling,
            account=account,
            one_step=steps == 1,
            limit=room * sampling.max_step_tokens,
            begin=begin,
            division=begin.fork(),
        )
        for keys in distinct_draws(node, n, sampling)
    ]


def is_whole(draft: Draft, answer: Answer) -> bool:
    """Whether all that came of an answer is part of its draft; else the server's count is of more."""
    return not answer.division.dropped and answer.tokens == answer.division.tokens - draft.division.tokens


def tokens_of(draft: Draft, answer: Answer, granted: int, counted: int | None) -> int:
    """The tokens of one of a request's answers, of whose tokens ``counted`` were counted in all.

    A server that says it stopped for the length wrote all that it was permitted, however few events it sent.
    """
    shown = answer.division.tokens - draft.division.tokens
    if answer.finish == "length" and not answer.division.done:
        return granted if counted is None else min(counted, granted)
    return shown


def most_tokens_of(answer: Answer, granted: int, cost: int, *, known: bool) -> int:
    """The tokens that an answer may have needed at most, of which ``cost`` were seen; all of them, if they are
    ``known``."""
    if answer.finish == "length" and not answer.division.done and cost >= granted:
        return cost
    ended = 0 if answer.finish is None else 1  # by a token that may not be among those that were counted
    if known or (answer.finish in CUT_OFF and not answer.division.done):
        return cost + ended
    return max(cost + ended, min(granted, len(answer.text.encode()) + 1))


def _look(node: Node, sampling: Sampling) -> Look | None:
    """Where a solution that goes on below ``node`` ends within what is written there."""
    rules, problem, before = sampling.solution_end, node.tree.problem, node.text

    def look(text: str, added: str | None) -> Ending | None:
        if added is not None and not rules.may_end(added):
            return None
        ending = rules.find(problem, before + text, cut_off=added is None)
        if ending is None:
            return None
        return Ending(ending.reason, ending.length - len(before), ending.seen - len(before))

    return look if rules else None
