"""Attention of new tokens of trees, laid in one row, over what is cached of their paths and over one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradatim.engine.attention_pattern import AttentionPattern
from gradatim.engine.tree_attention import Weighting, attends_again, own_part
from gradatim.engine.tree_row import TreeRow

_QUERIES = {"cpu": 128}  # in a block: fewer make many small calls, more attend to what no query of the block sees
_WORTH = {"cpu": 1 << 12}  # so many needless pairs of a query and a key cost as much as one more call
_ELSEWHERE = (2048, 1 << 20)


@dataclass
class RowPlan:
    """New tokens of trees, whose cached tokens lie in the same row; see :class:`gradatim.engine.tree_attention
    .AttentionPlan`. Each block of queries meets only those keys that any of them sees, under the exact mask.

    Attributes:
        row: all tokens, cached and new.
        queries: (new,) the places of the new tokens, ascending.
        blocks: the queries of each block.
        cached: (layers, 2, key-value heads, cached, head size), or ``None`` where nothing is cached.
        at: (T,) where the token of each place lies: first the cached ones, then the new ones.
        keep: whether ``written`` is kept.
        written: one (2, key-value heads, new, head size) per layer: the new keys and values.
    """

    row: TreeRow
    queries: Tensor
    blocks: Sequence[slice]
    cached: Tensor | None
    at: Tensor
    keep: bool = True
    written: dict[int, Tensor] = field(default_factory=dict)
    _met: dict[AttentionPattern, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.queries.device

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, weighting: Weighting) -> Tensor:
        if layer in self.written:
            raise attends_again(layer)
        self.written[layer] = torch.cat((key, value)) if self.keep else key.new_empty(0)
        if self.cached is not None:
            past = own_part(self.cached[layer], key)
            key, value = torch.cat((past[:1], key), dim=2), torch.cat((past[1:], value), dim=2)
        outputs = []
        for block, (keys, mask) in zip(self.blocks, self._blocks(weighting.pattern), strict=True):
            queries = query[:, :, block]
            output = _attention(queries, key.index_select(2, keys), value.index_select(2, keys), mask, weighting)
            outputs.append(output.transpose(1, 2))
        return torch.cat(outputs, dim=1)

    def _blocks(self, pattern: AttentionPattern) -> list[tuple[Tensor, Tensor]]:
        """For each block where its keys lie (m,) and the mask (1, 1, queries, m), true where a key is seen."""
        if pattern not in self._met:
            blocks = [self.row.block(pattern, self.queries[block]) for block in self.blocks]
            self._met[pattern] = [(self.at[keys], mask[None, None]) for keys, mask in blocks]
        return self._met[pattern]


def blocks_of(trees: Sequence[tuple[int, int]], device: torch.device) -> list[slice]:
    """How the queries of a row are divided into blocks.

    Queries of different trees see nothing of one another, so trees share a block only where the needless work is less
    than another call is worth.

    Args:
        trees: for each tree of the row how many queries it has, and how many tokens.
        device: where they attend.
    """
    most, worth = _QUERIES.get(device.type, _ELSEWHERE[0]), _WORTH.get(device.type, _ELSEWHERE[1])
    blocks: list[slice] = []
    start = 0
    tokens = pairs = 0  # of the last block's trees: tokens, and pairs of a query and a token of its own tree
    for queries, length in trees:
        stop = start + queries
        if blocks and queries:
            together = stop - blocks[-1].start
            if together <= most and together * (tokens + length) - pairs - queries * length <= worth:
                blocks[-1], start = slice(blocks[-1].start, stop), stop
                tokens, pairs = tokens + length, pairs + queries * length
        while start < stop:
            blocks.append(slice(start, min(start + most, stop)))
            tokens, pairs = length, (blocks[-1].stop - start) * length
            start = blocks[-1].stop
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
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scores = query @ key.transpose(2, 3) * weighting.scaling
    if weighting.softcap is not None:
        scores = torch.tanh(scores / weighting.softcap) * weighting.softcap
    scores = scores.masked_fill(~mask, float("-inf")).float()
    if weighting.sinks is not None:
        sinks = weighting.sinks.float()[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, sinks), dim=3)
    weights = scores.softmax(dim=-1)[..., : key.shape[2]]
    return weights.to(value.dtype) @ value
