"""Attention of new tokens of trees, laid in one row, over what is cached of their paths and over one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradatim.engine.attention_pattern import AttentionPattern
from gradatim.engine.tree_attention import Weighting, attends_again, own_part
from gradatim.engine.tree_row import TreeRow

# Queries in a block: fewer make many small calls, more attend to what no query of the block sees; and so many needless
# pairs of a query and a key cost as much as one more call.
_LIMITS = {"cpu": (128, 1 << 12)}
_ELSEWHERE = (2048, 1 << 20)


@dataclass(frozen=True, slots=True)
class Block:
    """Some of the new tokens of a row, and what is cached of their paths.

    Attributes:
        queries: which of the new tokens.
        cached: (layers, 2, key-value heads, n, head size) of each node of which any of them may see something.
        places: (m,) where these tokens lie in the row.
    """

    queries: slice
    cached: Sequence[Tensor]
    places: Tensor

    def seen(self, layer: int, key: Tensor, value: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and the values of a layer that it meets: the cached ones, and of ``key`` and ``value``, those of all
        new tokens, the ones at the indices ``new``; each (1, key-value heads, tokens, head size)."""
        keys, values = key.index_select(2, new), value.index_select(2, new)
        if not self.cached:
            return keys, values
        cached = [own_part(each[layer], key) for each in self.cached]
        keys = torch.cat([*(each[:1] for each in cached), keys], dim=2)
        return keys, torch.cat([*(each[1:] for each in cached), values], dim=2)


@dataclass
class Watch:
    """Of which new tokens it is noted how much they attend to what, in one layer.

    Attributes:
        layer: the layer.
        tokens: (w,) which of the new tokens, ascending.
        weights: (w, tokens of the row) in float32, the mean over the heads; filled in by the pass.
    """

    layer: int
    tokens: Tensor
    weights: Tensor
    done: bool = False


@dataclass
class RowPlan:
    """New tokens of trees, whose cached tokens lie in the same row; see :class:`gradatim.engine.tree_attention
    .AttentionPlan`. Each block of queries meets only those keys that any of them sees, under the exact mask.

    Attributes:
        row: all tokens, cached and new.
        queries: (new,) the places of the new tokens, ascending.
        blocks: all new tokens, in order.
        keep: whether ``written`` is kept.
        watch: whose attention is noted, if anybody's.
        written: one (2, key-value heads, new, head size) per layer: the new keys and values.
    """

    row: TreeRow
    queries: Tensor
    blocks: Sequence[Block]
    keep: bool = True
    watch: Watch | None = None
    written: dict[int, Tensor] = field(default_factory=dict)
    _met: dict[AttentionPattern, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.queries.device

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, weighting: Weighting) -> Tensor:
        if layer in self.written:
            raise attends_again(layer)
        self.written[layer] = torch.cat((key, value)) if self.keep else key.new_empty(0)
        outputs = []
        for block, (keys, mask) in zip(self.blocks, self._blocks(weighting.pattern), strict=True):
            seen_key, seen_value = block.seen(layer, key, value, keys)
            output = _attention(query[:, :, block.queries], seen_key, seen_value, mask, weighting)
            outputs.append(output.transpose(1, 2))
            if self.watch is not None and layer == self.watch.layer:
                self._note(self.watch, block, query, seen_key, keys, mask, weighting)
        return torch.cat(outputs, dim=1)

    def _note(
        self, watch: Watch, block: Block, query: Tensor, key: Tensor, new: Tensor, mask: Tensor, weighting: Weighting
    ) -> None:
        """Note the weights of those queries of a block that are watched; ``key`` are the keys that the block meets,
        the cached ones and those of the ``new`` tokens."""
        watch.done = True
        inside = (watch.tokens >= block.queries.start) & (watch.tokens < block.queries.stop)
        watched = watch.tokens[inside]
        if len(watched):
            places = torch.cat((block.places, self.queries[new]))
            weights = _weights(query[:, :, watched], key, mask[:, :, watched - block.queries.start], weighting)
            rows = inside.nonzero()[:, :1]
            watch.weights[rows, places[None]] = weights[0].mean(dim=0)

    def _blocks(self, pattern: AttentionPattern) -> list[tuple[Tensor, Tensor]]:
        """For each block which new tokens it sees (k,), and the mask (1, 1, queries, m + k) of these behind the cached
        ones, true where a token is seen."""
        if pattern not in self._met:
            blocks = self._met[pattern] = []
            for block in self.blocks:
                queries = self.queries[block.queries]
                keys, seen = self.row.met(pattern, queries, self.queries)
                mask = torch.cat((self.row.sees(pattern, queries, block.places), seen), dim=1)
                blocks.append((keys, mask[None, None]))
        return self._met[pattern]


def divided(trees: Sequence[tuple[int, int]], device: torch.device) -> list[tuple[slice, slice]]:
    """How the queries of a row are divided into blocks: for each which queries, and of which trees.

    Queries of different trees see nothing of one another, so trees share a block only where the needless work is less
    than another call is worth.

    Args:
        trees: for each tree of the row how many queries it has, and how many tokens.
        device: where they attend.
    """
    most, worth = _LIMITS.get(device.type, _ELSEWHERE)
    blocks: list[tuple[slice, slice]] = []
    start = 0
    tokens = pairs = 0  # of the last block's trees: tokens, and pairs of a query and a token of its own tree
    for tree, (queries, length) in enumerate(trees):
        stop = start + queries
        if blocks and queries:
            last, members = blocks[-1]
            together = stop - last.start
            if together <= most and together * (tokens + length) - pairs - queries * length <= worth:
                blocks[-1], start = (slice(last.start, stop), slice(members.start, tree + 1)), stop
                tokens, pairs = tokens + length, pairs + queries * length
        while start < stop:
            end = min(start + most, stop)
            blocks.append((slice(start, end), slice(tree, tree + 1)))
            tokens, pairs = length, (end - start) * length
            start = end
    return blocks


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, weighting: Weighting) -> Tensor:
    """Attention of one block.

    Args:
        query: (1, heads, n, head size).
        key, value: (1, key-value heads, m, head size).
        mask: (1, 1, n, m), true where a key is seen.
        weighting: how weights are made.

    Returns:
        (1, heads, n, head size).
    """
    repeats = query.shape[1] // key.shape[1]
    if weighting.softcap is None and weighting.sinks is None:
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=weighting.scaling, enable_gqa=repeats > 1
        )
    weights = _weights(query, key, mask, weighting)
    return weights.to(value.dtype) @ value.repeat_interleave(repeats, dim=1)


def _weights(query: Tensor, key: Tensor, mask: Tensor, weighting: Weighting) -> Tensor:
    """How much each query attends to each key, (1, heads, n, m) in float32; arguments as for :func:`_attention`."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query @ key.transpose(2, 3) * weighting.scaling
    if weighting.softcap is not None:
        scores = torch.tanh(scores / weighting.softcap) * weighting.softcap
    scores = scores.masked_fill(~mask, float("-inf")).float()
    if weighting.sinks is not None:
        sinks = weighting.sinks.float()[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, sinks), dim=3)
    return scores.softmax(dim=-1)[..., : key.shape[2]]
