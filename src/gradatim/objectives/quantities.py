"""What objectives are functions of: the quantities of tokens and steps, and which of them make which terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradatim.errors import GradatimError
from gradatim.objectives.base import Unit, shape_of


@dataclass(frozen=True, eq=False)
class TermIndex:
    """Which tokens make which steps, which steps which groups, and which groups which terms; nothing is padded.

    For ``T`` scored tokens, ``S`` steps, ``M`` memberships of a step in a group, ``G`` groups and ``N`` terms:

    Attributes:
        token_step (``T``): the step that a token is of, ascending.
        lengths (``S``): tokens of each step.
        step_of (``M``), group_of (``M``): step ``step_of[i]`` is in group ``group_of[i]``, ascending; the steps of a
            group come in the order of its path.
        step_weight (``M``): how much the step counts in its group.
        step_target (``M``): what the step is aimed at in its group, NaN where nothing is said.
        group_term (``G``): the term that a group is of, ascending.
        target (``G``): what the group is aimed at, NaN where nothing is said.
        weight (``N``): how much each term counts, of either sign.
        label_smoothing (``N``): the probability that each term, a pair, is the wrong way round.
    """

    token_step: Tensor
    lengths: Tensor
    step_of: Tensor
    group_of: Tensor
    step_weight: Tensor
    step_target: Tensor
    group_term: Tensor
    target: Tensor
    weight: Tensor
    label_smoothing: Tensor

    def steps(self, of: Tensor) -> Tensor:
        """Sum a quantity of tokens, (T,), over each step: (S,)."""
        return of.new_zeros(self.lengths.shape[0]).index_add(0, self.token_step, of)

    def groups(self, of: Tensor) -> Tensor:
        """Sum a quantity of steps, (S,), over each group by the steps' weights: (G,)."""
        members = self.step_weight * of[self.step_of]
        return members.new_zeros(self.target.shape[0]).index_add(0, self.group_of, members)

    def sums(self, of: Tensor) -> Tensor:
        """Sum a quantity of tokens, (T,), over each group by the steps' weights: (G,)."""
        return self.groups(self.steps(of))

    def by_member(self) -> tuple[Tensor, Tensor]:
        """Each token as often as its step is in a group: the membership and the token of every such pair, (P,) each,
        ascending by membership. A loss that is not linear in what a token is given (clipped ratios under the advantages
        of several paths) is computed over these."""
        lengths = self.lengths[self.step_of]
        member = torch.repeat_interleave(torch.arange(lengths.shape[0], device=lengths.device), lengths)
        first = torch.cumsum(self.lengths, 0) - self.lengths  # where each step's tokens begin
        before = torch.cumsum(lengths, 0) - lengths
        place = torch.arange(member.shape[0], device=lengths.device) - before[member]
        return member, first[self.step_of][member] + place

    def by_term(self, of: Tensor) -> Tensor:
        """Sum a quantity of memberships, (M,), over each term, unweighted: (N,)."""
        return of.new_zeros(self.weight.shape[0]).index_add(0, self.group_term[self.group_of], of)

    def last(self) -> Tensor:
        """The membership of each group's last step, (G,)."""
        groups = torch.arange(self.target.shape[0], device=self.group_of.device)
        return torch.searchsorted(self.group_of, groups, right=True) - 1

    def ends(self, of: Tensor) -> Tensor:
        """A quantity of steps, (S, ...), at each group's last step: (G, ...)."""
        return of[self.step_of[self.last()]]

    def begins(self, of: Tensor) -> Tensor:
        """A quantity of steps, (S, ...), at each group's first step: (G, ...)."""
        last = self.last()
        return of[self.step_of[torch.cat([last.new_zeros(1), last[:-1] + 1])]]

    def later(self, of: Tensor, group: Tensor) -> Tensor:
        """For each of some parts of groups, the sum of a quantity over the parts of its group that follow it: (K,).

        Args:
            of: (K,) of the parts, in the order of the paths.
            group: (K,) the group of each, ascending: `group_of` of memberships, ``group_of[member]`` of their tokens.
        """
        totals = of.new_zeros(self.target.shape[0]).index_add(0, group, of)
        from_each_on = of.flip(0).cumsum(0).flip(0)  # to the end of the row
        behind = totals.flip(0).cumsum(0).flip(0) - totals
        return from_each_on - of - behind[group]

    def terms(self, of: Tensor) -> Tensor:
        """Sum a quantity of groups, (G,), over each term: (N,)."""
        return of.new_zeros(self.weight.shape[0]).index_add(0, self.group_term, of)

    def singles(self, of: Tensor) -> Tensor:
        """A quantity of groups, (G,), by terms of one group each: (N,).

        Raises:
            GradatimError: if a term has another number of groups.
        """
        return self._by_term(of, 1)[:, 0]

    def pairs(self, of: Tensor) -> Tensor:
        """A quantity of groups, (G,), by terms of two groups each, chosen and rejected: (N, 2).

        Raises:
            GradatimError: if a term has another number of groups.
        """
        return self._by_term(of, 2)

    def lists(self, of: Tensor) -> tuple[Tensor, ...]:
        """A quantity of groups, (G,), for each of the ``N`` terms: as many numbers as it has groups."""
        return torch.split(of, torch.bincount(self.group_term, minlength=self.weight.shape[0]).tolist())

    def sizes(self, unit: Unit) -> Tensor:
        """What each term counts in the mean that a loss is, (N,): its absolute weight; for means over tokens, times
        the tokens of its steps, each by its absolute weight."""
        return self.weight.abs() * self.tokens() if unit == "tokens" else self.weight.abs()

    def tokens(self) -> Tensor:
        """The tokens of each term's steps, each by its step's absolute weight: (N,)."""
        return self.by_term(self.step_weight.abs() * self.lengths[self.step_of])

    def _by_term(self, of: Tensor, groups: int) -> Tensor:
        terms = self.weight.shape[0]
        expected = torch.arange(terms, device=self.group_term.device).repeat_interleave(groups)
        if self.group_term.shape != expected.shape or not torch.equal(self.group_term, expected):
            raise GradatimError(f"the objective learns from {shape_of(groups)}, but a term is of another kind")
        return of.view(terms, groups)


@dataclass(frozen=True, eq=False)
class Quantities(TermIndex):
    """What a model says of a row's tokens and steps; nothing is summed beforehand.

    Attributes:
        log_probabilities (``T``): of each scored token under the model that is trained; empty where the objective does
            not need them.
        reference (``T``): the same under the reference; likewise.
        behaviour (``T``): the same under the policy that sampled the steps, as the trees recorded it; likewise.
        confidence (``T``): how sure the reference was before each scored token, from 0 to 1; likewise.
        heads: by name, what a head says at each step's last token, (``S``,), under ``before:name`` at the token before
            the step begins, (``S``,), and under ``tokens:name`` at the token before each scored token, (``T``,); with a
            dimension more, (``S``, outputs), for heads of several outputs.
    """

    log_probabilities: Tensor
    reference: Tensor
    behaviour: Tensor
    heads: Mapping[str, Tensor]
    confidence: Tensor = field(default_factory=lambda: torch.zeros(0))
