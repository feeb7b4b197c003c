"""The keys and values of tree nodes, with a memory bound."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from gradatim.tree import Node, Tree

_BLOCK = 32  # buffers grow by multiples of this many tokens


@dataclass(slots=True)
class NodeState:
    """What a model computed for one node.

    Attributes:
        keys_values: (layers, 2, key-value heads, tokens, head size) of the node's tokens; a node that was just
            sampled lacks its last token, which no model has read yet.
        hidden: (n, hidden size) the last hidden states of the last n of them; of what was just sampled there are none.
    """

    keys_values: Tensor
    hidden: Tensor

    @property
    def tokens(self) -> int:
        return self.keys_values.shape[3]

    @property
    def bytes(self) -> int:
        return sum(each.numel() * each.element_size() for each in (self.keys_values, self.hidden))


class KeyValueStore:
    """Node states, the least recently used dropped first when ``memory_bytes`` is exceeded.

    A dropped state is a matter of time and not of results: whoever needs it computes it again. States of a tree that
    is garbage-collected go with it, and the store goes with whoever holds it, whatever trees live on.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.used_bytes = 0
        self.evicted = 0
        self._states: OrderedDict[tuple[int, int], NodeState] = OrderedDict()
        self._trees: dict[int, set[int]] = {}

    def get(self, node: Node) -> NodeState | None:
        """The node's state, or ``None``; counts as a use."""
        key = (id(node.tree), node.id)
        state = self._states.get(key)
        if state is not None:
            self._states.move_to_end(key)
        return state

    def put(self, node: Node, state: NodeState) -> None:
        """Keep ``state``, in place of an earlier one; then drop the least recently used ones over the bound."""
        key = (id(node.tree), node.id)
        if key[0] not in self._trees:
            self._trees[key[0]] = set()
            weakref.finalize(node.tree, _drop_tree, weakref.ref(self), key[0])
        self._drop(key)
        self._states[key] = state
        self._trees[key[0]].add(node.id)
        self.used_bytes += state.bytes
        while self.used_bytes > self.memory_bytes:
            self.evicted += 1
            self._drop(next(iter(self._states)))

    def release(self, tree: Tree) -> None:
        """Drop everything of one tree."""
        for node_id in list(self._trees.get(id(tree), ())):
            self._drop((id(tree), node_id))

    def clear(self) -> None:
        """Drop everything, as after a change of the model's weights."""
        self._states.clear()
        for nodes in self._trees.values():
            nodes.clear()
        self.used_bytes = 0

    def _drop(self, key: tuple[int, int]) -> None:
        state = self._states.pop(key, None)
        if state is not None:
            self.used_bytes -= state.bytes
            self._trees[key[0]].discard(key[1])

    def _drop_tree(self, tree_id: int) -> None:
        for node_id in self._trees.pop(tree_id, set()):
            state = self._states.pop((tree_id, node_id), None)
            if state is not None:
                self.used_bytes -= state.bytes


def _drop_tree(store: weakref.ref[KeyValueStore], tree_id: int) -> None:
    """Drop what a store keeps of a tree that is gone, if the store is still there."""
    kept = store()
    if kept is not None:
        kept._drop_tree(tree_id)


def with_room(buffer: Tensor | None, example: Tensor, rows: int, tokens: int) -> Tensor:
    """``buffer`` (layers, 2, rows, heads, tokens, size), replaced by a larger copy where it is too small.

    ``example`` (layers, 2, heads, any, size) gives the other sizes. New room is zero, so that masked places stay
    finite.
    """
    if buffer is not None and buffer.shape[2] >= rows and buffer.shape[4] >= tokens:
        return buffer
    old_rows, old_tokens = (0, 0) if buffer is None else (buffer.shape[2], buffer.shape[4])
    layers, two, heads, _, size = example.shape
    # Where a buffer grows, it grows by half at least, so that a growing batch is not copied again and again.
    new_rows = old_rows if rows <= old_rows else -(-max(rows, old_rows * 3 // 2) // 8) * 8
    new_tokens = old_tokens if tokens <= old_tokens else -(-max(tokens, old_tokens * 3 // 2) // _BLOCK) * _BLOCK
    larger = example.new_zeros((layers, two, new_rows, heads, new_tokens, size))
    if buffer is not None:
        larger[:, :, :old_rows, :, :old_tokens] = buffer
    return larger
