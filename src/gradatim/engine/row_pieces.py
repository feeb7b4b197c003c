"""Nodes as they lie in a row of trees: what is computed of them, in which blocks, whose attention is noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from gradatim.engine.key_value_store import NodeState
from gradatim.engine.row_attention import Block, Watch, divided
from gradatim.errors import GradatimError
from gradatim.tree import Node


@dataclass(slots=True)
class Piece:
    """A node in a row of trees.

    Attributes:
        node: the node.
        tokens: as many of its tokens as are read.
        known: so many of them are cached.
        state: what is cached of it.
        start: the place of its first token in the row.
        stop: one past the last place of what was laid below it.
        depth: tokens of its path before it.
    """

    node: Node
    tokens: list[int]
    known: int
    state: NodeState | None
    start: int = 0
    stop: int = 0
    depth: int = 0

    @property
    def missing(self) -> list[int]:
        return self.tokens[self.known :]


def blocks(pieces: Sequence[Piece], new: Sequence[int], device: torch.device) -> list[Block]:
    """The new tokens of a row, which lie at the places ``new``, in blocks."""
    trees = [list(group) for _, group in groupby(pieces, key=lambda piece: id(piece.node.tree))]
    sizes = [(sum(len(each.missing) for each in tree), sum(len(each.tokens) for each in tree)) for tree in trees]
    blocks = []
    for queries, members in divided(sizes, device):
        first, last = new[queries.start], new[queries.stop - 1]
        near = [each for tree in trees[members] for each in tree if each.start <= last and each.stop > first]
        places = [place for each in near for place in range(each.start, each.start + each.known)]
        cached = [each.state.keys_values[:, :, :, : each.known] for each in near if each.state is not None]
        blocks.append(Block(queries, cached, torch.tensor(places, dtype=torch.long, device=device)))
    return blocks


def watch_over(
    pieces: Sequence[Piece], new: Sequence[int], watched: Mapping[Node, int], layer: int, device: torch.device
) -> Watch:
    """What notes the attention of one token of each watched node, given by its index; the new tokens of the row lie at
    the places ``new``."""
    index = {place: number for number, place in enumerate(new)}
    tokens = [index[piece.start + watched[piece.node]] for piece in pieces if piece.node in watched]
    weights = torch.zeros(len(tokens), sum(len(piece.tokens) for piece in pieces), device=device)
    return Watch(layer, torch.tensor(tokens, device=device), weights)


def on_paths(pieces: Sequence[Piece], watch: Watch, watched: Mapping[Node, int]) -> dict[Node, Tensor]:
    """What was noted of each watched node, at the tokens of its path: (tokens,) on the CPU."""
    if not watch.done:
        raise GradatimError("the model's last layer does not attend; name a model that attends in all its layers")
    spans = {piece.node: slice(piece.start, piece.start + len(piece.tokens)) for piece in pieces}
    found: dict[Node, Tensor] = {}
    for node, row in zip((piece.node for piece in pieces if piece.node in watched), watch.weights.cpu(), strict=True):
        own = slice(spans[node].start, spans[node].start + watched[node] + 1)
        found[node] = torch.cat([row[place] for place in (*(spans[each] for each in node.path()[:-1]), own)])
    return found
