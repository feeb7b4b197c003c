"""Three problems from one end to the other, and what the whole run will cost by their measure."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gradatim.evaluation.page import Section, Table, Verbatim
from gradatim.event_loop import run_to_end
from gradatim.part import models_of
from gradatim.run.context import Lent, Run
from gradatim.run.models import make_sampling
from gradatim.run.shown_solutions import shown_solutions
from gradatim.run.stages import measures_loss, policies_of
from gradatim.run.trees import tree_searcher
from gradatim.search import IndependentSampling
from gradatim.tasks.base import grade
from gradatim.tree import Problem, Tree

PROBLEMS = 3
_SAMPLES = 4  # solutions of each problem, at most


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the run that was tried: what one unit of it costs, and how many there will be.

    Attributes:
        name: what it is.
        tokens: that models read and wrote for one problem.
        seconds: that it took, with few problems at a time.
        problems: how many there will be in the run, one for each policy that is measured on it.
        scale: how much more is done for a problem in the run than was tried.
    """

    name: str
    tokens: float
    seconds: float
    problems: int
    scale: float = 1.0

    @property
    def total_tokens(self) -> float:
        return self.tokens * self.problems * self.scale

    @property
    def total_seconds(self) -> float:
        return self.seconds * self.problems * self.scale


def try_out(run: Run) -> tuple[list[Section], list[str]]:
    """Sample, search and score a few problems as the run will, in memory alone.

    Returns:
        What a person should look at, as sections, and one line for everything that is wrong.
    """
    recipe = run.recipe
    test, train = run.problems("test"), run.problems("train")
    samples = min(_SAMPLES, recipe.evaluation.samples)
    measured = len(test) * len(policies_of(recipe))
    rounds = range(1, recipe.rounds + 1)
    online = recipe.online
    each = len(train) if online is None else min(online.problems, len(train))
    grown = each * recipe.rounds + recipe.problems.validation * sum(measures_loss(recipe, n) for n in rounds)
    part = recipe.evaluation.scorer
    untrained = part is not None and all(run.last_training(name) is None for name in models_of(part))
    policy = Lent(run, {}).policy()
    scorer = run.judge() if untrained else None
    parts: list[Part] = []
    run.progress.line(f"Trying {len(test[:PROBLEMS])} problems, {samples} solutions each")

    async def sample(tree: Tree) -> None:
        await IndependentSampling(n=samples, score="steps")(tree, policy, scorer)

    async def everything() -> list[Tree]:
        try:
            sampled = await _timed(
                "evaluation", sample, test[:PROBLEMS], measured, recipe.evaluation.samples / samples, parts
            )
            if train and recipe.search is not None:
                await _timed("growing trees", tree_searcher(run, {}).search, train[:PROBLEMS], grown, 1.0, parts)
            return sampled
        finally:
            await policy.close()

    sampled = run_to_end(everything())
    for tree in sampled:
        grade(tree, run.task)
    if recipe.demonstrated is None:
        return [_solutions(sampled, run), _costs(parts)], _troubles(sampled)
    note = Section("", ["The policy was tried as it is; what is searched and measured in the run is fine-tuned first."])
    return [_solutions(sampled, run), note, _costs(parts)], []


async def _timed(
    name: str, work: Any, problems: Sequence[Problem], count: int, scale: float, parts: list[Part]
) -> list[Tree]:
    """Search ``problems`` together, and note what one of them cost."""
    trees = [Tree(problem) for problem in problems]
    started = time.perf_counter()
    await asyncio.gather(*map(work, trees))
    if not trees:
        return trees
    seconds = (time.perf_counter() - started) / len(trees)
    parts.append(Part(name, sum(tree.budget.total for tree in trees) / len(trees), seconds, count, scale))
    return trees


def _solutions(trees: Sequence[Tree], run: Run) -> Section:
    """The first prompt as it was put, and what became of solutions."""
    lines: list[Any] = []
    boundary = make_sampling(run.recipe.policy.sampling, run.task).boundary
    for entry in shown_solutions(trees, run.recipe.policy.sampling)[:PROBLEMS]:
        steps = "".join(f"| {step}" for step in boundary.split(entry["text"])) or "(no text)"
        prompt = entry["prompt"] if entry["prompt"].endswith("\n") else f"{entry['prompt']}\n"
        lines.append(f"Problem {entry['problem']}: {entry['kind']}, ended by: {entry['ended_by']}; {entry['verifier']}")
        lines.append(Verbatim(prompt + steps))
    return Section("Solutions, a mark before every step", lines or ["No solution was finished or cut off."])


def _costs(parts: Sequence[Part]) -> Section:
    rows = [
        [part.name, f"{part.problems:,}", f"{part.total_tokens:,.0f}", f"{part.total_seconds / 60:,.1f}"]
        for part in parts
    ]
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    table = Table(["part", "problems", "tokens", "minutes at most"], rows)
    note = (
        "Minutes are those of a few problems at a time; more at once take less each. Training comes on top. "
        f"This check used {used:.1f} GiB of memory."
    )
    return Section("What the run will cost", [table, note])


def _troubles(trees: Sequence[Tree]) -> list[str]:
    """What a person should change before running all of it."""
    leaves = [leaf for tree in trees for leaf in tree.leaves() if not leaf.is_root]
    if not leaves:
        return ["no solution was written: raise the budget, or look at the prompt"]
    found = []
    if all(leaf.step.end.cuts_off for leaf in leaves):
        found.append("every solution was cut off: raise policy.sampling.max_step_tokens or policy.sampling.max_steps")
    elif not any(leaf.correct for leaf in leaves):
        found.append("no solution is right: look at the prompt and at what the verifier says above")
    return found
