"""The running batch: branches that write one token each in every forward pass."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor

from gradatim.engine.branch_attention import BranchPlan
from gradatim.engine.key_value_store import NodeState, with_room
from gradatim.engine.shared_prefix import SharedPrefixes
from gradatim.engine.tree_model import TreeModel

_KEPT_BYTES = 256 << 20  # memory that is kept while nothing runs: a search that waits for its scorer is soon back


class BranchBatch:
    """Branches, each with what it wrote itself; a tree's prompt and the rest of a node's path are shared.

    Branches are numbered 0 to ``len(batch) - 1``. Joining takes the next number; when branches leave, the last ones
    take their numbers (see :meth:`remove`), so the running ones always lie side by side.
    """

    def __init__(self, model: TreeModel) -> None:
        self._model = model
        self._token: list[int] = []  # per branch: written last, not read yet
        self._start: list[int] = []  # per branch: position of the first token that it wrote
        self._suffix_length: list[int] = []  # per branch: tokens that it wrote and that were read
        self._prompts = SharedPrefixes(seats=32)
        self._paths = SharedPrefixes(seats=16)
        self._suffix: Tensor | None = None
        self._example: Tensor | None = None

    def __len__(self) -> int:
        return len(self._token)

    def bytes_needed(self, more: int = 0) -> int:
        """Memory of the keys and values that the next pass attends to, with so many ``more`` branches."""
        if self._example is None:
            return 0
        layers, two, heads, _, size = self._example.shape
        width = max(self._suffix_length, default=0) + 1
        tokens = (len(self) + more) * width + self._prompts.tokens + self._paths.tokens
        return layers * two * heads * size * self._example.element_size() * tokens

    def join(self, tree: Hashable, node: Hashable, states: Sequence[NodeState], token: int) -> None:
        """Add a branch that follows a path with these states and has written ``token``.

        Branches of one ``tree`` have the path's first state in common, those of one ``node`` all of them.
        """
        example = self._example = states[0].keys_values
        self._prompts.join(tree, states[:1], example, 0)
        self._paths.join(node, states[1:], example, states[0].tokens)
        self._token.append(token)
        self._start.append(sum(state.tokens for state in states))
        self._suffix_length.append(0)

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
        length = len(self) - len(leaving)
        gone = set(leaving)
        movers = [branch for branch in range(length, len(self)) if branch not in gone]
        moves = list(zip(movers, leaving, strict=False))
        for mover, place in moves:
            written = self._suffix_length[mover]
            if self._suffix is not None and written:
                self._suffix[:, :, place, :, :written] = self._suffix[:, :, mover, :, :written]
        for values in (self._token, self._start, self._suffix_length):
            for mover, place in moves:
                values[place] = values[mover]
            del values[length:]
        for level in (self._prompts, self._paths):
            level.leave(leaving, moves)
        return moves

    def free(self) -> None:
        """Give memory back that is too much to be kept; for a batch without branches."""
        suffix = 0 if self._suffix is None else self._suffix.numel() * self._suffix.element_size()
        if suffix + self._prompts.bytes + self._paths.bytes > _KEPT_BYTES:
            self._suffix = None
            self._prompts.free()
            self._paths.free()

    def step(self) -> Tensor:
        """Read every branch's last token in one forward pass: (branches, vocabulary) logits."""
        assert self._example is not None, "a batch without branches has nothing to read"
        device = self._example.device
        longest = max(self._suffix_length)
        self._suffix = with_room(self._suffix, self._example, len(self), longest + 1)
        suffix_lengths = torch.tensor(self._suffix_length, device=device)
        positions = torch.tensor(self._start, device=device) + suffix_lengths
        parts = (self._prompts.part(), self._paths.part())
        plan = BranchPlan(
            shared=[part for part in parts if part is not None],
            suffix=self._suffix,
            suffix_lengths=suffix_lengths,
            longest_suffix=longest,
            positions=positions,
        )
        input_ids = torch.tensor(self._token, device=device)[:, None]
        logits = self._model.forward(plan, input_ids, positions[:, None])[:, 0]
        self._model.statistics.tokens += len(self)
        self._suffix_length = [length + 1 for length in self._suffix_length]
        return logits
