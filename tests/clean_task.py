"""A task of which all is known: a solution is right if it has no x, and a policy writes an x with a given chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradatim.engine.reader import Reader
from gradatim.part import part
from gradatim.policies.base import Policy
from gradatim.policies.scripted import Distribution, ScriptedPolicy, ScriptedStep, step_tokens
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.tasks.base import Task, Verdict
from gradatim.tree import EndReason, Node, Problem, Step, Tree


@part
class Clean(Task):
    """Solutions without an x."""

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        return [Problem(str(number), "go ") for number in range(count or 1)]

    def answer(self, problem: Problem, text: str) -> str | None:
        return text

    def check(self, problem: Problem, text: str) -> Verdict:
        return Verdict(float("x" not in text), "")


@dataclass(frozen=True)
class Given:
    """A scorer's context with the policies that are given by name."""

    policies: Mapping[str, Policy]
    task: Task = field(default_factory=Clean)

    def policy(self, name: str = "policy") -> Policy:
        return self.policies[name]

    def reader(self, name: str) -> Reader:
        raise NotImplementedError

    def reward_model(self, name: str, key: str, layout: str = "auto") -> ProcessRewardScorer:
        raise NotImplementedError


class CountingPolicy(ScriptedPolicy):
    """Counts how often it was asked for solutions of anything."""

    asked = 0

    async def extend(self, nodes: Any, n: Any = 1, **options: Any) -> list[Node]:
        self.asked += bool(nodes)
        return await super().extend(nodes, n, **options)


def ending(chance_of_x: float = 0.0) -> Distribution:
    """Ends every solution at once, rightly but for a chance."""

    def steps(node: Node) -> list[ScriptedStep]:
        ends = [ScriptedStep("done", 1 - chance_of_x, EndReason.END_OF_TEXT)]
        return [*ends, ScriptedStep("x", chance_of_x, EndReason.END_OF_TEXT)] if chance_of_x else ends

    return steps


def write(tree: Tree, *texts: str, source: str = "scripted") -> Node:
    """The solution of these steps; the last one ends it."""
    node = tree.root
    for place, text in enumerate(texts, 1):
        end = EndReason.END_OF_TEXT if place == len(texts) else EndReason.BOUNDARY
        step = ScriptedStep(text, 1.0, end)
        node = tree.add(node, Step(step_tokens(step), text, end=end, source=source))
    return node
