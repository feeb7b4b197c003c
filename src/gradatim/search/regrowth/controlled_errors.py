"""Controlled errors: right solutions are written on hotter from a chosen step until they go wrong."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from gradatim.counts import note_counts
from gradatim.errors import GradatimError
from gradatim.part import name_of, part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Context
from gradatim.search.around import decide_also
from gradatim.search.regrowth.base import Regrowth, note_regrown
from gradatim.tasks.base import grade_nodes
from gradatim.tree import Node, Tree

CONTROLLED = "controlled_errors"
"""The key of a note on a wrong solution: the ids of the leaves of the right ones that were made to err so."""


@part
class ControlledErrors(Regrowth):
    """Solutions that err from a chosen step on (Step-Controlled DPO: Lu et al., 2024, arXiv:2407.00782).

    From a step of a right solution that is chosen by chance, the policy writes on at a temperature that rises with each
    step, until the solution is wrong. What both share is right, so that the error is known to lie behind it;
    `controlled_pairs` prefer the right solution from there on. From the paper are the chosen step, the rising
    temperature and what is compared; the schedule is that of the authors' published program. How many solutions, steps
    and attempts there are is ours. Solutions that a limit cut off count as no error.
    """

    solutions: PositiveInt | None = 4
    """Right solutions of a tree that are made to err at most, chosen by chance; `null` for all."""
    steps: PositiveInt = 1
    """Steps of each from which it is made to err, chosen by chance."""
    limit: PositiveInt = 4
    """Solutions that are written from one step at most."""
    temperature: PositiveFloat = 1.1
    """At which the first step is written."""
    increase: NonNegativeFloat = 0.1
    """How much hotter each further step is written."""
    hottest: Annotated[float, Field(gt=0)] = 1.4
    """At which all further steps are written."""
    seed: int = 0
    """Of what is chosen by chance, beside the tree's own."""

    def __post_init__(self) -> None:
        if self.hottest < self.temperature:
            raise GradatimError(f"hottest ({self.hottest:g}) is below temperature ({self.temperature:g}); raise it")

    async def __call__(self, tree: Tree, context: Context) -> None:
        known, policy, begun = len(tree), context.policy(), self._begun(tree)
        errors: dict[Node, Node] = {}
        for _ in range(self.limit):
            waiting = [node for node in begun if node not in errors]
            if not waiting or tree.budget.spent:
                break
            leaves = await self._write(waiting, policy)
            await grade_nodes(leaves, context.task)
            note_regrown(leaves, name_of(self), known)
            for leaf in leaves:
                if leaf.finished and leaf.correct is False:
                    for node in leaf.path():
                        if node in waiting:
                            errors.setdefault(node, leaf)
        for node, right in begun.items():
            outcome = "an error was made" if node in errors else "no error was made"
            decide_also(node, "expanded", f"a right solution was written on hotter from here: {outcome}")
            if node in errors:
                errors[node].notes.setdefault(CONTROLLED, []).extend(leaf.id for leaf in right)
        note_counts(tree, name_of(self), {"steps to err from": len(begun), "errors made": len(errors)})

    def _begun(self, tree: Tree) -> dict[Node, list[Node]]:
        """The nodes from which solutions are made to err, each with the leaves of the right solutions through it that
        chose it."""
        right = [leaf for leaf in tree.solutions() if leaf.correct]
        if self.solutions is not None and len(right) > self.solutions:
            chosen = random.Random(tree.root.key ^ self.seed).sample(range(len(right)), self.solutions)
            right = [right[place] for place in sorted(chosen)]
        begun: dict[Node, list[Node]] = {}
        for leaf in right:
            before = leaf.path()[:-1]
            for node in random.Random(leaf.key ^ self.seed).sample(before, min(self.steps, len(before))):
                begun.setdefault(node, []).append(leaf)
        return dict(sorted(begun.items(), key=lambda item: item[0].id))

    async def _write(self, nodes: Sequence[Node], policy: Policy) -> list[Node]:
        """The ends of one solution from each node, the next step at a higher temperature than the one before."""
        ends: list[Node] = []
        going = list(nodes)
        for place in count():
            asked = Counter(going)  # two of them may have come to the same step
            if not asked:
                break
            drawn = await policy.extend(list(asked), list(asked.values()), sampling=self._hot(policy.sampling, place))
            ends += [node for node in drawn if not node.open]
            going = [node for node in drawn if node.open]
        return ends

    def _hot(self, sampling: Sampling, place: int) -> Sampling:
        return replace(sampling, temperature=min(self.temperature + place * self.increase, self.hottest))
