"""Keys and values that running branches share, held once for a group of branches."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from gradatim.engine.branch_attention import SharedPart
from gradatim.engine.key_value_store import NodeState, with_room


class SharedPrefixes:
    """One level of shared prefixes: each running branch sits in a group, the branches of a group share a prefix.

    Branches are numbered as in :class:`gradatim.engine.branch_batch.BranchBatch`.

    Args:
        seats: how many branches a group has at most; more of one prefix make several groups. Groups are padded to the
            largest, so this bounds the padding.
    """

    def __init__(self, seats: int) -> None:
        self._seats = seats
        self.group: list[int] = []  # per branch
        self.lengths: list[int] = []  # per group: tokens of its prefix
        self._starts: list[int] = []  # per group: position of its first token
        self._members: list[int] = []  # per group: branches in it; 0 where the place is free
        self._keys: list[Hashable] = []  # per group: what its branches share
        self._open: dict[Hashable, int] = {}  # the group that the next branch of a key joins
        self._buffer: Tensor | None = None
        self._layout: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @property
    def bytes(self) -> int:
        return 0 if self._buffer is None else self._buffer.numel() * self._buffer.element_size()

    @property
    def tokens(self) -> int:
        """Places for tokens that the groups take, padding included."""
        return len(self.lengths) * max(self.lengths, default=0)

    def join(self, key: Hashable, states: Sequence[NodeState], example: Tensor, start: int) -> None:
        """Add a branch that shares ``states``, whose first token has the position ``start``, with all branches of the
        same ``key``. ``example`` (layers, 2, heads, any, size) gives the sizes."""
        group = self._open.get(key)
        if group is None or self._members[group] == self._seats:
            group = self._open[key] = self._new_group(states, example)
            self._keys[group], self._starts[group] = key, start
        self.group.append(group)
        self._members[group] += 1
        self._layout = None

    def leave(self, branches: Sequence[int], moves: Sequence[tuple[int, int]]) -> None:
        """Take branches out; ``moves`` are those of :meth:`gradatim.engine.branch_batch.BranchBatch.remove`."""
        for branch in branches:
            group = self.group[branch]
            self._members[group] -= 1
            if self._members[group] == 0:
                self.lengths[group] = 0
                if self._open.get(self._keys[group]) == group:
                    del self._open[self._keys[group]]
        for mover, place in moves:
            self.group[place] = self.group[mover]
        del self.group[len(self.group) - len(branches) :]
        self._layout = None

    def free(self) -> None:
        """Give the memory back; for a batch without branches."""
        assert not self.group, "a batch with branches needs its prefixes"
        self._buffer = None

    def part(self) -> SharedPart | None:
        """What the attention needs; ``None`` where no prefix has any token."""
        if self._layout is None:
            self._layout = self._arrange()
        lengths, starts, seats, seat = self._layout
        longest = max(self.lengths[: len(lengths)])
        if longest == 0 or self._buffer is None:
            return None
        return SharedPart(self._buffer[:, :, : len(lengths), :, :longest], lengths, starts, seats, seat)

    def _new_group(self, states: Sequence[NodeState], example: Tensor) -> int:
        group = next((group for group, members in enumerate(self._members) if members == 0), len(self._members))
        if group == len(self._members):
            for values in (self.lengths, self._starts, self._members):
                values.append(0)
            self._keys.append(None)
        length = self.lengths[group] = sum(state.tokens for state in states)
        buffer = self._buffer = with_room(self._buffer, example, len(self._members), length)
        start = 0
        for state in states:
            buffer[:, :, group, :, start : start + state.tokens] = state.keys_values
            start += state.tokens
        return group

    def _arrange(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tensors ``lengths``, ``starts``, ``seats`` and ``seat`` of :class:`SharedPart`."""
        running = sum(members > 0 for members in self._members)
        if 2 * running <= max(self.group) + 1:
            self._close_up(running)
        groups = max(self.group) + 1
        width = max(self._members)
        table = [[0] * width for _ in range(groups)]
        taken = [0] * groups
        seat = []
        for branch, group in enumerate(self.group):
            table[group][taken[group]] = branch
            seat.append(group * width + taken[group])
            taken[group] += 1
        assert self._buffer is not None
        values = (self.lengths[:groups], self._starts[:groups], table, seat)
        lengths, starts, seats, places = (torch.tensor(value, device=self._buffer.device) for value in values)
        return lengths, starts, seats, places

    def _close_up(self, running: int) -> None:
        """Move the groups that lie last to free places, so that the ``running`` ones lie side by side."""
        assert self._buffer is not None
        places = [group for group in range(running) if self._members[group] == 0]
        movers = [group for group in range(running, len(self._members)) if self._members[group] > 0]
        moves = dict(zip(movers, places, strict=True))
        for mover, place in moves.items():
            length = self.lengths[mover]
            self._buffer[:, :, place, :, :length] = self._buffer[:, :, mover, :, :length]
            for values in (self.lengths, self._starts, self._members):
                values[place] = values[mover]
            self._keys[place] = self._keys[mover]
        self.group = [moves.get(group, group) for group in self.group]
        self._open = {key: moves.get(group, group) for key, group in self._open.items()}
        for values in (self.lengths, self._starts, self._members):
            del values[running:]
        del self._keys[running:]
