"""Attention of a decoding step: one new token for each running branch, over what branches share and what is their own.

The keys and values that several branches share are held and read once: those of a tree's prompt for all branches of
the tree, those of an expanded node's path for all branches of the node. A softmax over all of them together is put
together from the softmaxes over the parts (Milakov and Gimelshein, 2018), so the result is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradatim.engine.attention_pattern import EVERYTHING, AttentionPattern
from gradatim.engine.tree_attention import Weighting, attends_again, own_part

Part = tuple[Tensor, Tensor, Tensor]
"""A softmax over some of the keys, left open: weighted values, the largest score and the sum of weights."""


@dataclass
class SharedPart:
    """One level of what branches share. The branches of a group share the group's keys and values.

    Attributes:
        keys_values: (layers, 2, groups, key-value heads, longest, head size).
        lengths: (groups,) tokens of each group.
        starts: (groups,) position of each group's first token.
        seats: (groups, seats) a branch for each seat of a group; free seats name any branch.
        seat: (branches,) each branch's place in the flattened ``seats``.
    """

    keys_values: Tensor
    lengths: Tensor
    starts: Tensor
    seats: Tensor
    seat: Tensor
    _masks: dict[AttentionPattern, Tensor] = field(default_factory=dict)

    def attend(self, layer: int, query: Tensor, positions: Tensor, weighting: Weighting) -> Part:
        """:func:`_attention_part` over this level: ``query`` is (branches, key-value heads, repeats, head size),
        ``positions`` (branches,) are those of the new tokens."""
        groups, seats = self.seats.shape
        _, shared, repeats, size = query.shape
        seated = query[self.seats.flatten()].view(groups, seats, shared, repeats, size).transpose(1, 2)
        seated = seated.reshape(groups, shared, seats * repeats, size)
        keys, values = own_part(self.keys_values[layer], seated)
        scores = seated @ keys.transpose(2, 3)
        mask = self._mask(weighting.pattern, positions)
        if mask.shape[2] > 1:
            mask = mask.repeat_interleave(repeats, dim=2)
        output, top, total = _attention_part(scores, mask, values, weighting.softcap)
        return self._unseat(output, seats), self._unseat(top, seats), self._unseat(total, seats)

    def _unseat(self, part: Tensor, seats: int) -> Tensor:
        """(groups, heads, seats * repeats, n) to (branches, heads, repeats, n)."""
        groups, shared, rows, width = part.shape
        return part.view(groups, shared, seats, rows // seats, width).transpose(1, 2).flatten(0, 1)[self.seat]

    def _mask(self, pattern: AttentionPattern, positions: Tensor) -> Tensor:
        """Added to the scores: (groups, 1, seats or 1, longest), 0 or minus infinity."""
        if pattern not in self._masks:
            places = torch.arange(self.keys_values.shape[4], device=self.lengths.device)
            sees = (places < self.lengths[:, None])[:, None, :]
            if pattern is not EVERYTHING:  # all that is shared lies before the new tokens
                sees = sees & pattern.sees(positions[self.seats], self.starts[:, None] + places)
            self._masks[pattern] = _additive(sees[:, None])
        return self._masks[pattern]


@dataclass
class BranchPlan:
    """One new token for each running branch; see :class:`gradatim.engine.tree_attention.AttentionPlan`.

    Attributes:
        shared: what branches share, level by level.
        suffix: (layers, 2, branches or more, key-value heads, capacity, head size): what each branch wrote itself; the
            new token's keys and values are written here.
        suffix_lengths: (branches,) tokens already in it.
        longest_suffix: the largest of ``suffix_lengths``.
        positions: (branches,) positions of the new tokens.
    """

    shared: Sequence[SharedPart]
    suffix: Tensor
    suffix_lengths: Tensor
    longest_suffix: int
    positions: Tensor
    _masks: dict[AttentionPattern, Tensor] = field(default_factory=dict)
    _attended: set[int] = field(default_factory=set)

    @property
    def device(self) -> torch.device:
        return self.suffix_lengths.device

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, weighting: Weighting) -> Tensor:
        if layer in self._attended:
            raise attends_again(layer)
        self._attended.add(layer)
        branches, heads, _, size = query.shape
        shared = key.shape[1]
        rows = torch.arange(branches, device=query.device)
        buffer = own_part(self.suffix[layer], key)
        buffer[0, rows, :, self.suffix_lengths] = key[:, :, 0]
        buffer[1, rows, :, self.suffix_lengths] = value[:, :, 0]
        query = (query * weighting.scaling).view(branches, shared, heads // shared, size)

        width = self.longest_suffix + 1
        scores = query @ buffer[0, :branches, :, :width].transpose(2, 3)
        mask = self._mask(weighting.pattern)
        parts = [_attention_part(scores, mask, buffer[1, :branches, :, :width], weighting.softcap)]
        parts += [part.attend(layer, query, self.positions, weighting) for part in self.shared]
        if weighting.sinks is not None:
            parts.append(_sinks(weighting.sinks, parts[0]))
        return _joined(parts).to(value.dtype).view(branches, 1, heads, size)

    def _mask(self, pattern: AttentionPattern) -> Tensor:
        """Added to the scores of a branch's own tokens: (branches, 1, 1, suffix), 0 or minus infinity."""
        if pattern not in self._masks:
            own = torch.arange(self.longest_suffix + 1, device=self.suffix_lengths.device)
            sees = (own <= self.suffix_lengths[:, None])[:, None, :]
            if pattern is not EVERYTHING:
                starts = self.positions - self.suffix_lengths
                sees = sees & pattern.sees(self.positions[:, None], starts[:, None] + own)
            self._masks[pattern] = _additive(sees[:, None])
        return self._masks[pattern]


def _additive(sees: Tensor) -> Tensor:
    return torch.zeros(sees.shape, device=sees.device).masked_fill_(~sees, float("-inf"))


def _attention_part(scores: Tensor, mask: Tensor, value: Tensor, softcap: float | None) -> Part:
    """Softmax over a part of the keys: ``scores`` (..., queries, keys), ``value`` (..., keys, size)."""
    scores = scores.float()
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores + mask
    # A part may hold no key at all (a window that has moved past it): keep the maximum finite.
    top = scores.amax(dim=-1, keepdim=True).clamp_min(-1e30)
    weights = scores.sub_(top).exp_()
    return (weights.to(value.dtype) @ value).float(), top, weights.sum(dim=-1, keepdim=True)


def _sinks(sinks: Tensor, like: Part) -> Part:
    """The part that the sinks (heads,) are: a score without a value. Shapes as those of the part ``like``."""
    output, top, total = like
    return torch.zeros_like(output), sinks.float().view(1, *top.shape[1:]).expand_as(top), torch.ones_like(total)


def _joined(parts: Sequence[Part]) -> Tensor:
    """Bring the open softmaxes of all parts to one maximum, and then to one sum."""
    output, top, total = parts[0]
    for other, other_top, other_total in parts[1:]:
        highest = torch.maximum(top, other_top)
        weight, other_weight = (top - highest).exp_(), (other_top - highest).exp_()
        output = output * weight + other * other_weight
        total = total * weight + other_total * other_weight
        top = highest
    return output / total
