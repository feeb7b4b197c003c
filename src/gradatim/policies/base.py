"""What a policy is: whatever proposes next steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, SkipValidation

from gradatim.budget import Account
from gradatim.part import PartOf, options
from gradatim.text.boundaries.base import Boundary
from gradatim.text.boundaries.delimiter import LINES
from gradatim.text.solution_end import NEVER, SolutionEnd
from gradatim.tree import Node, Tree


@options
class SamplingOptions:
    """How steps are sampled, as a recipe says it."""

    temperature: NonNegativeFloat = 1.0
    """0 takes the likeliest token; 1 samples from the model's own distribution."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Keep the smallest set of tokens whose probability reaches this; 1 keeps all."""
    top_k: NonNegativeInt = 0
    """Keep this many of the likeliest tokens; 0 keeps all."""
    max_step_tokens: PositiveInt = 128
    """A step that reaches this length is cut off."""
    max_steps: PositiveInt = 64
    """A solution ends after this many steps, finished or not, however it is searched."""
    boundary: Annotated[Boundary, PartOf("text/boundaries")] | None = None
    """What ends a step; `null` is what the task says."""


@options
class Sampling(SamplingOptions):
    """How steps are sampled."""

    boundary: Annotated[Boundary, PartOf("text/boundaries")] = LINES
    """What ends a step."""
    solution_end: SkipValidation[SolutionEnd] = NEVER
    """What ends a solution beside the policy's end token."""

    @property
    def may_drop(self) -> bool:
        """Whether tokens that were written may turn out to be no part of what is continued: they show that it has
        ended before them."""
        return self.boundary.looks_ahead or bool(self.solution_end.next_problem or self.solution_end.stop)


@runtime_checkable
class Policy(Protocol):
    """Proposes next steps. Callers never batch by hand: a policy batches whatever is waiting, across all searches.

    Every token of the tree is charged to its budget, and a budget is spent in the order of nodes and draws, whatever
    was written first. Where it ends inside a step, the step is cut off there (``EndReason.BUDGET``), and the draws
    after it have no results; so a limited tree is the same in every batch. At temperature 0 the draws of a node are all
    alike: one is written and charged, and counts as all of them.

    A node whose path is as long as the model reads stays unexpanded, and is counted and told of.

    A solution ends, under every search alike, with the policy's end token, with its complete final answer or the
    beginning of a next problem (:class:`gradatim.text.solution_end.SolutionEnd`), or at a limit. What a policy wrote
    beyond that end is no part of the tree and costs nothing. A solution that a limit cuts off after its final answer
    is complete is finished (``EndReason.ANSWER``).

    Attributes:
        sampling: how steps are sampled where a call does not say.
        account: what trees are charged to where a call does not say.
    """

    sampling: Sampling
    account: Account

    @property
    def source(self) -> str:
        """What it calls itself on the steps that it writes."""
        ...

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        steps: int | None = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
    ) -> list[Node]:
        """Continue each open node ``n`` times.

        Args:
            nodes: what is continued; closed nodes are passed over.
            n: draws below each node, or below each its own number; 0 is none.
            steps: how many steps each draw writes at most (1 proposes steps; after ``k`` that did not end the solution,
                its node is open); ``None`` goes on to the end of the solution.
            sampling: how steps are sampled; the policy's own way by default.
            account: what is charged; the policy's own by default. An account pays for what is read for it for the first
                time, and never for reading what it paid for as written.

        Returns:
            The node of the last step of each draw, in the order of nodes and draws: the same one as often as it was
            drawn. What was written before that step became nodes of the tree too.

        Raises:
            ValueError: if a number of draws or steps makes no sense, or there are not as many numbers as nodes.
        """
        ...

    def release(self, tree: Tree) -> None:
        """Forget what is kept of a tree that is done."""
        ...

    async def close(self) -> None:
        """Let go of what is held between searches (connections, caches); the policy can be used again."""
        ...
