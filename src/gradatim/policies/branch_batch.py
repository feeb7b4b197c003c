"""The running batch: branches that write one token each in every forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gradatim.policies.key_value_store import NodeState, with_room
from gradatim.policies.tree_attention import BranchPlan
from gradatim.policies.tree_model import TreeModel


class BranchBatch:
    """Branches in groups. The branches of a group continue the same node and share its keys and values.

    Branches are numbered 0 to ``len(batch) - 1``. Joining takes the next number; when branches leave, the last ones
    take their numbers (see :meth:`remove`), so the running ones always lie side by side.
    """

    def __init__(self, model: TreeModel) -> None:
        self._model = model
        self._group: list[int] = []  # per branch
        self._suffix_length: list[int] = []  # per branch
        self._token: list[int] = []  # per branch: written last, not read yet
        self._members: list[int] = []  # per group: branches in it; 0 where the place is free
        self._prefix_length: list[int] = []  # per group
        self._prefix: Tensor | None = None
        self._suffix: Tensor | None = None
        self._layout: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._group)

    def open_group(self, states: Sequence[NodeState]) -> int:
        """A group that continues the path of ``states``, for branches that join it before the next group is opened or
        the next pass runs; it lasts until its last branch leaves."""
        length = sum(state.tokens for state in states)
        group = self._free_group()
        self._members[group] = 0
        self._prefix_length[group] = length
        prefix = self._prefix = with_room(self._prefix, states[0].keys_values, len(self._members), length)
        start = 0
        for state in states:
            prefix[:, :, group, :, start : start + state.tokens] = state.keys_values
            start += state.tokens
        return group

    def join(self, group: int, token: int) -> None:
        """Add a branch to ``group`` that has written ``token``."""
        self._group.append(group)
        self._suffix_length.append(0)
        self._token.append(token)
        self._members[group] += 1
        self._layout = None

    def written(self, branch: int) -> Tensor | None:
        """A copy of the keys and values of what the branch wrote, but for its last token:
        (layers, 2, key-value heads, tokens, head size)."""
        if self._suffix is None:
            return None
        return self._suffix[:, :, branch, :, : self._suffix_length[branch]].clone()

    def continue_with(self, tokens: Sequence[int]) -> None:
        """Note what each branch wrote in this pass, in order of branches."""
        self._token = list(tokens)

    def remove(self, branches: Iterable[int]) -> list[tuple[int, int]]:
        """Take branches out. Returns the moves ``(from, to)`` by which the last branches took their places; then the
        numbers from the new length on are gone."""
        leaving = sorted(branches)
        for branch in leaving:
            self._members[self._group[branch]] -= 1
        length = len(self) - len(leaving)
        gone = set(leaving)
        movers = [branch for branch in range(length, len(self)) if branch not in gone]
        moves = list(zip(movers, leaving, strict=False))
        if moves and self._suffix is not None:
            longest = max(self._suffix_length[mover] for mover, _ in moves)
            sources, places = ([move[side] for move in moves] for side in (0, 1))
            self._suffix[:, :, places, :, :longest] = self._suffix[:, :, sources, :, :longest]
        for values in (self._group, self._suffix_length, self._token):
            for mover, place in moves:
                values[place] = values[mover]
            del values[length:]
        self._layout = None
        return moves

    def free(self) -> None:
        """Give the buffers' memory back; for a batch without branches."""
        assert not self._group, "a batch with branches needs its buffers"
        self._members, self._prefix_length, self._prefix, self._suffix = [], [], None, None

    def step(self) -> Tensor:
        """Read every branch's last token in one forward pass: (branches, vocabulary) logits."""
        assert self._prefix is not None, "a branch joins an open group"
        device = self._prefix.device
        longest = max(self._suffix_length)
        self._suffix = with_room(self._suffix, self._prefix[:, :, 0, :, :0], len(self), longest + 1)
        if self._layout is None:
            self._layout = self._arrange(device)
        group, prefix_lengths, seats, seat = self._layout
        suffix_lengths = torch.tensor(self._suffix_length, device=device)
        groups = seats.shape[0]
        plan = BranchPlan(
            prefix=self._prefix[:, :, :groups, :, : max(self._prefix_length[:groups])],
            prefix_lengths=prefix_lengths,
            suffix=self._suffix,
            suffix_lengths=suffix_lengths,
            group=group,
            seats=seats,
            seat=seat,
            longest_suffix=longest,
        )
        input_ids = torch.tensor(self._token, device=device)[:, None]
        positions = (prefix_lengths[group] + suffix_lengths)[:, None]
        logits = self._model.forward(plan, input_ids, positions, last_only=False)[:, 0]
        self._model.statistics.tokens += len(self)
        self._suffix_length = [length + 1 for length in self._suffix_length]
        return logits

    def position(self, branch: int) -> int:
        """Position of the token that the branch writes next."""
        return self._prefix_length[self._group[branch]] + self._suffix_length[branch] + 1

    def _arrange(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tensors ``group``, ``prefix_lengths``, ``seats`` and ``seat`` of :class:`BranchPlan`."""
        running = sum(members > 0 for members in self._members)
        if 2 * running <= max(self._group) + 1:
            self._close_up(running)
        groups = max(self._group) + 1
        width = max(self._members)
        table = [[0] * width for _ in range(groups)]
        taken = [0] * groups
        seat = []
        for branch, group in enumerate(self._group):
            table[group][taken[group]] = branch
            seat.append(group * width + taken[group])
            taken[group] += 1
        for group, members in enumerate(self._members[:groups]):
            if members == 0:
                self._prefix_length[group] = 0
        return (
            torch.tensor(self._group, device=device),
            torch.tensor(self._prefix_length[:groups], device=device),
            torch.tensor(table, device=device),
            torch.tensor(seat, device=device),
        )

    def _close_up(self, running: int) -> None:
        """Move the groups that lie last to free places, so that ``running`` groups lie side by side."""
        assert self._prefix is not None
        places = [group for group in range(running) if self._members[group] == 0]
        movers = [group for group in range(running, len(self._members)) if self._members[group] > 0]
        for mover, place in zip(movers, places, strict=True):
            length = self._prefix_length[place] = self._prefix_length[mover]
            self._members[place] = self._members[mover]
            self._prefix[:, :, place, :, :length] = self._prefix[:, :, mover, :, :length]
        moves = dict(zip(movers, places, strict=True))
        self._group = [moves.get(group, group) for group in self._group]
        del self._members[running:], self._prefix_length[running:]

    def _free_group(self) -> int:
        for group, members in enumerate(self._members):
            if members == 0:
                return group
        self._members.append(0)
        self._prefix_length.append(0)
        return len(self._members) - 1
