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
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    def attend(
        self, layer: int, query: Tensor, positions: Tensor, window: int | None, softcap: float | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """:func:`_attention_part` over this level: ``query`` is (branches, key-value heads, repeats, head size),
        ``positions`` (branches,) are those of the new tokens."""
        groups, seats = self.seats.shape
        _, shared, repeats, size = query.shape
        seated = query[self.seats.flatten()].view(groups, seats, shared, repeats, size).transpose(1, 2)
        scores = seated.reshape(groups, shared, seats * repeats, size) @ self.keys_values[layer, 0].transpose(2, 3)
        mask = self._mask(window, positions)
        if window is not None:
            mask = mask.repeat_interleave(repeats, dim=2)
        output, top, total = _attention_part(scores, mask, self.keys_values[layer, 1], softcap)
        return self._unseat(output, seats), self._unseat(top, seats), self._unseat(total, seats)

    def _unseat(self, part: Tensor, seats: int) -> Tensor:
        """(groups, heads, seats * repeats, n) to (branches, heads, repeats, n)."""
        groups, shared, rows, width = part.shape
        return part.view(groups, shared, seats, rows // seats, width).transpose(1, 2).flatten(0, 1)[self.seat]

    def _mask(self, window: int | None, positions: Tensor) -> Tensor:
        """Added to the scores: (groups, 1, seats or 1, longest), 0 or minus infinity."""
        if window not in self._masks:
            places = torch.arange(self.keys_values.shape[4], device=self.lengths.device)
            sees = (places < self.lengths[:, None])[:, None, None, :]
            if window is not None:
                distance = positions[self.seats][:, :, None] - (self.starts[:, None] + places)[:, None, :]
                sees = sees & (distance < window)[:, None]
            self._masks[window] = _additive(sees)
        return self._masks[window]


@dataclass
class BranchPlan:
    """One new token for each running branch; see :class:`gradatim.policies.tree_attention.AttentionPlan`.

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
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.suffix_lengths.device

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None,
        softcap: float | None,
    ) -> Tensor:  # fmt: skip
        branches, heads, _, size = query.shape
        shared = key.shape[1]
        rows = torch.arange(branches, device=query.device)
        buffer = self.suffix[layer]
        buffer[0, rows, :, self.suffix_lengths] = key[:, :, 0]
        buffer[1, rows, :, self.suffix_lengths] = value[:, :, 0]
        query = (query * scaling).view(branches, shared, heads // shared, size)

        width = self.longest_suffix + 1
        scores = query @ buffer[0, :branches, :, :width].transpose(2, 3)
        own = _attention_part(scores, self._mask(window), buffer[1, :branches, :, :width], softcap)
        parts = [own, *(part.attend(layer, query, self.positions, window, softcap) for part in self.shared)]
        return _joined(parts).to(value.dtype).view(branches, 1, heads, size)

    def _mask(self, window: int | None) -> Tensor:
        """Added to the scores of a branch's own tokens: (branches, 1, 1, suffix), 0 or minus infinity."""
        if window not in self._masks:
            own = torch.arange(self.longest_suffix + 1, device=self.suffix_lengths.device)
            sees = own <= self.suffix_lengths[:, None]
            if window is not None:
                sees = sees & (self.suffix_lengths[:, None] - own < window)
            self._masks[window] = _additive(sees[:, None, None, :])
        return self._masks[window]


def _additive(sees: Tensor) -> Tensor:
    return torch.zeros(sees.shape, device=sees.device).masked_fill_(~sees, float("-inf"))


def _attention_part(
    scores: Tensor, mask: Tensor, value: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax over a part of the keys, left open: weighted values, the maximum score and the sum of weights."""
    scores = scores.float()
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores + mask
    # A part may hold no key at all (a window that has moved past it): keep the maximum finite.
    top = scores.amax(dim=-1, keepdim=True).clamp_min(-1e30)
    weights = scores.sub_(top).exp_()
    return (weights.to(value.dtype) @ value).float(), top, weights.sum(dim=-1, keepdim=True)


def _joined(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Bring the open softmaxes of all parts to one maximum, and then to one sum."""
    output, top, total = parts[0]
    for other, other_top, other_total in parts[1:]:
        highest = torch.maximum(top, other_top)
        weight, other_weight = (top - highest).exp_(), (other_top - highest).exp_()
        output = output * weight + other * other_weight
        total = total * weight + other_total * other_weight
        top = highest
    return output / total
