"""What a policy is: whatever proposes next steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from gradatim.text.solution_end import NEVER, SolutionEnd
from gradatim.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class Sampling:
    """How steps are sampled.

    Attributes:
        temperature: 0 takes the likeliest token; 1 samples from the model's own distribution.
        top_p: keep the smallest set of tokens whose probability reaches this (1.0 keeps all).
        top_k: keep this many likeliest tokens (0 keeps all).
        max_step_tokens: a step that reaches this length is cut off.
        max_steps: a solution ends after this many steps below the root, finished or not, however it is searched.
        step_end: the strings that end a step.
        solution_end: what ends a solution beside the policy's end token.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_step_tokens: int = 128
    max_steps: int = 64
    step_end: tuple[str, ...] = ("\n",)
    solution_end: SolutionEnd = NEVER

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (keep all) or more, got {self.top_k}")
        if self.max_step_tokens < 1 or self.max_steps < 1:
            raise ValueError("max_step_tokens and max_steps must be at least 1")


def source_of(policy: object) -> str:
    """What a policy calls itself on the steps that it writes (``policy.source``); empty if it does not say."""
    return str(getattr(policy, "source", ""))


class Engine(Protocol):
    """What a policy keeps between calls.

    Attributes:
        sampling: how steps are sampled where a call does not say.
    """

    sampling: Sampling

    def release(self, tree: Tree) -> None:
        """Forget what is kept of a tree that is done."""
        ...

    async def close(self) -> None:
        """Let go of what is held between searches (connections, caches); the policy can be used again."""
        ...


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
    """

    async def expand(self, nodes: Sequence[Node], n: int, sampling: Sampling | None = None) -> list[Node]:
        """Propose ``n`` steps below each open node.

        Returns the distinct children that were proposed, in the order of ``nodes``; a step proposed twice is one
        node with a higher multiplicity. Closed nodes are passed over.
        """
        ...

    async def rollout(self, nodes: Sequence[Node], n: int, sampling: Sampling | None = None) -> list[Node]:
        """Complete ``n`` solutions below each open node, step by step, to their end.

        Returns one leaf per solution in the order of ``nodes``, the same leaf as often as it was sampled. The steps
        between become nodes of the tree.
        """
        ...


class PolicyEngine(Policy, Engine, Protocol):
    """A policy that recipes and commands can run: the transformers engine, vLLM, or a server."""
