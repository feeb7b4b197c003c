"""Advantages of whole solutions, and of steps among those taken from equal states."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.supervision.advantages import Advantages, Relative, Rewards, kept, returns
from gradatim.supervision.terms import Term
from gradatim.tree import Node, Tree


@part
class AnchorAdvantages(Relative, Rewards, Advantages):
    r"""Solutions among all, steps among those from the same state (GiGPO, Feng et al., 2025, arXiv:2505.10978).

    .. math:: A_{it} = \hat R_i + \omega \hat G_{it}, \qquad G_{it} = \sum_{k \ge t} \gamma^{k - t} r_{ik}

    for the total :math:`R_i` of what solution :math:`i` earned, made relative to all solutions of the problem, and what
    it earned from step :math:`t` on, discounted, made relative to all steps that were taken from the same state, be
    they of other solutions or of this one. A prefix that solutions share is one state; ``state`` finds further equal
    ones in the text of the step before. A step that alone was taken from its state has its solution's part only; with
    :math:`\omega = 0` all have, which is `trajectory_advantages` with ``returns: whole``.
    """

    has_step_targets: ClassVar[bool] = True
    asks: ClassVar[str] = "no problem has several solutions whose rewards differ"

    state: str | None = None
    """A regular expression over a step's text, whose groups (or all that it matches) are the state behind the step: in
    countdown ``\\|(.*)`` are the numbers that are left. Where it is not found, and with `null`, only equal prefixes are
    equal states."""
    step_weight: NonNegativeFloat = 1.0
    """How much the comparison of steps from the same state counts."""
    discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What a reward one step later is worth to a step; below 1 it is better to come to one sooner, also where all
    solutions are right. (The paper's agents have 0.95.)"""

    def __post_init__(self) -> None:
        try:
            re.compile(self.state or "")
        except re.error as error:
            raise GradatimError(f"the state {self.state!r} is no regular expression: {error}") from error

    def __call__(self, tree: Tree) -> list[Term]:
        solutions = self.solutions(tree)
        episodes = self.relative([sum(self.earned(each)) for each in solutions], [each.count for each in solutions])
        advantages = [[given] * len(each.steps) for given, each in zip(episodes, solutions, strict=True)]
        to_go = [returns(self.earned(each), self.discount) for each in solutions]
        states: dict[Hashable, list[tuple[int, int]]] = {}
        for place, each in enumerate(solutions):
            for number, step in enumerate(each.steps):
                states.setdefault(self._state_before(step), []).append((place, number))
        for group in states.values():
            counts = [solutions[place].count for place, _ in group]
            earned = self.relative([to_go[place][number] for place, number in group], counts)
            for (place, number), given in zip(group, earned, strict=True):
                advantages[place][number] += self.step_weight * given
        return kept(each.term(given) for each, given in zip(solutions, advantages, strict=True))

    def _state_before(self, step: Node) -> Hashable:
        """What a step was taken from: equal for equal states."""
        before = step.parent
        if before is None or before.is_root or self.state is None:
            return before
        found = re.search(self.state, before.step.text_with_observation)
        return before if found is None else found.groups() or found.group()
