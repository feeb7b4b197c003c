"""What the policy engine keeps of a request to continue a node, and of each of its running continuations."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from torch import Tensor

from gradatim.budget import Budget
from gradatim.policies.base import Sampling
from gradatim.policies.key_value_store import NodeState
from gradatim.tree import EndReason, Node, Step


@dataclass(slots=True)
class Written:
    """What one branch wrote: its steps, and the keys and values of the first one."""

    key: int
    steps: list[Step]
    keys_values: Tensor | None


@dataclass(slots=True)
class Expansion:
    """A request to continue one node ``len(keys)`` times."""

    node: Node
    keys: list[int]
    sampling: Sampling
    to_the_end: bool
    done: asyncio.Future[list[Written]]
    context: list[int]  # the last tokens of the node's path
    length: int  # tokens of the node's path
    solution: str  # the text of the node's path, from below the root
    thinking: bool  # whether the prompt opens a thought
    started: int = 0
    running: int = 0
    states: list[NodeState] | None = None
    results: dict[int, Written] = field(default_factory=dict)


@dataclass(slots=True)
class Branch:
    """One running continuation."""

    expansion: Expansion
    number: int
    key: int
    budget: Budget
    longest: int  # a branch of so many tokens ends, or its step does
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    step_ends: list[int] = field(default_factory=list)  # where each finished step ends in ``tokens``
    end: EndReason | None = None
    solution_length: int | None = None  # characters that are the solution, where it ended before the last token
