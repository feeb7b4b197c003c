"""What the policy engine keeps of a request to continue a node, and of each of its running continuations."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from torch import Tensor

from gradatim.budget import Account
from gradatim.engine.key_value_store import NodeState
from gradatim.policies.base import Sampling
from gradatim.tree import EndReason, Node, Step


@dataclass(slots=True)
class Written:
    """What one branch wrote: its steps, and their keys and values.

    Attributes:
        keys: of the draws that it stands for.
        steps: from the first to the last, at least one.
        keys_values: see :meth:`gradatim.engine.branch_batch.BranchBatch.written`.
    """

    keys: list[int]
    steps: list[Step]
    keys_values: Tensor | None

    def keys_values_of(self, start: int, end: int) -> Tensor | None:
        """Those of the tokens from ``start`` to ``end``; of the last token there are none."""
        if self.keys_values is None or len(self.steps) == 1:
            return self.keys_values
        return self.keys_values[:, :, :, start:end].clone()


@dataclass(slots=True, eq=False)
class Expansion:
    """A request to continue one node, once for each of its branches.

    Attributes:
        node: the node.
        read: the node as the model reads it: itself, or its counterpart in the model's tokens where the tree has text
            steps (see :class:`gradatim.text.transcript.Transcript`).
        sampling: how its branches are sampled.
        account: what is charged for what is read and written.
        steps: how many steps each branch writes at most; ``None`` completes the solution.
        done: has what was written, in the order of draws, once all is written and charged.
        context: the last tokens of the node's path.
        length: tokens of the node's path.
        solution: the text of the node's path, from below the root.
        thinking: whether the prompt opens a thought.
        branches: in the order of draws.
        started: how many of them were started, or need not be.
        charged: how many of them are written and charged.
        states: of the node's path, once they are computed.
    """

    node: Node
    read: Node
    sampling: Sampling
    account: Account
    steps: int | None
    done: asyncio.Future[list[Written]]
    context: list[int]
    length: int
    solution: str
    thinking: bool
    branches: list[Branch] = field(default_factory=list)
    started: int = 0
    charged: int = 0
    states: list[NodeState] | None = None


@dataclass(slots=True, eq=False)
class Branch:
    """One running continuation; a :class:`gradatim.policies.spending_order.Writer`.

    Attributes:
        expansion: what it belongs to.
        keys: of the draws that it stands for; several where all of them are alike.
        longest: a branch of so many tokens ends, or its step does.
        tokens: what it wrote.
        log_probabilities: of each token.
        step_ends: where each finished step ends in ``tokens``.
        ends_seen: how many tokens were written when that was known.
        end: why it ended; ``None`` while it runs.
        solution_tokens, kept_tokens: where it turned to a next problem, the tokens that hold the solution and those
            up to where that was seen; where it was seen only later that its last step has ended, those up to that end,
            twice. The others are dropped when it is charged.
        solution_length: characters that are the solution, where it turned to a next problem.
        keys_values: of what it wrote, where they are kept.
        allowed, begins: see :class:`gradatim.policies.spending_order.Writer`.
    """

    expansion: Expansion
    keys: list[int]
    longest: int
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    step_ends: list[int] = field(default_factory=list)
    ends_seen: list[int] = field(default_factory=list)
    end: EndReason | None = None
    solution_tokens: int | None = None
    kept_tokens: int | None = None
    solution_length: int | None = None
    keys_values: Tensor | None = None
    allowed: int | None = None
    begins: bool = True

    @property
    def account(self) -> Account:
        return self.expansion.account

    @property
    def written(self) -> int:
        return len(self.tokens)

    @property
    def may_drop(self) -> bool:
        return self.expansion.sampling.may_drop

    @property
    def done(self) -> bool:
        return self.end is not None

    @property
    def has_all(self) -> bool:
        """Whether it has ended, or has all the tokens that it may have."""
        return self.end is not None or (self.allowed is not None and len(self.tokens) >= self.allowed)

    def begin_again(self, longest: int) -> None:
        """Forget what was written: it will be the same again, since its random numbers will be."""
        self.longest = longest
        self.tokens, self.log_probabilities, self.step_ends, self.ends_seen = [], [], [], []

    def cut(self, tokens: int) -> None:
        """Take back what was written beyond so many tokens, and whatever that said of the solution's end: the budget
        ended there."""
        del self.tokens[tokens:], self.log_probabilities[tokens:]
        known = sum(seen <= tokens for seen in self.ends_seen)
        del self.step_ends[known:], self.ends_seen[known:]
        self.end = EndReason.BUDGET
        self.solution_tokens = self.kept_tokens = self.solution_length = self.keys_values = None

    def end_step(self, end: int) -> None:
        """Note that a step ends behind so many tokens."""
        self.step_ends.append(end)
        self.ends_seen.append(len(self.tokens))

    def drop_surplus(self) -> None:
        """Take back what was written behind the last step's end, or behind the heading of a next problem."""
        if self.kept_tokens is None or self.solution_tokens is None:
            return
        solution, kept = self.solution_tokens, self.kept_tokens
        self.step_ends = [end for end in self.step_ends if end <= solution and end < kept]
        del self.tokens[kept:], self.log_probabilities[kept:]
        if self.keys_values is not None:
            self.keys_values = self.keys_values[:, :, :, : kept - 1]
        self.kept_tokens = None
