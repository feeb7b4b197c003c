"""Attention over packed rows block by block: each block of queries meets only those keys that any of them sees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from gradatim.engine.attention_pattern import AttentionPattern, Uncut
from gradatim.training.row_masks import RowMasks, row_mask

BLOCK_ATTENTION = "gradatim_tree_blocks"  # the name under which transformers knows it
_BLOCK = 128  # queries in a block: fewer make many small calls, more attend to what no query of the block sees


class TreeBlocks(Uncut):
    """Which keys each block of queries can see at all: most of a packed row is other branches and other trees.

    Attention over a row of ``T`` tokens by a mask computes ``T * T`` scores. Here the row's queries are divided into
    blocks, and each meets only those keys that some query of the block sees, still under the exact mask.

    Attributes:
        parts: per block its first query, one past its last query, the row positions of its keys (n,), and the mask
            (1, 1, queries, n), true where a key is seen.
    """

    def __init__(self, parts: list[tuple[int, int, Tensor, Tensor]]) -> None:
        self.parts = parts


def tree_blocks(masks: RowMasks, pattern: AttentionPattern) -> TreeBlocks:
    """A row in blocks of queries."""
    parts = []
    for start in range(0, len(masks.places), _BLOCK):
        queries = masks.places[start : start + _BLOCK]
        keys, seen = masks.met(pattern, queries, masks.places)
        parts.append((start, start + len(queries), keys, seen[None, None]))
    return TreeBlocks(parts)


def block_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | TreeBlocks | None,
    **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' scaled dot-product attention, block by block where a packed row is read.

    Args:
        module: the attention layer.
        query: (1, heads, T, head size).
        key, value: (1, key heads, T, head size).
        attention_mask: the row's blocks; a mask, or ``None``, where the model reads something else.
        options: as transformers passes them.

    Returns:
        (1, T, heads, head size), and no attention weights.
    """
    if not isinstance(attention_mask, TreeBlocks):
        output: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]
        return output, None
    options["is_causal"] = False
    outputs = []
    for start, stop, keys, mask in attention_mask.parts:
        block = query[:, :, start:stop], key.index_select(2, keys), value.index_select(2, keys)
        outputs.append(sdpa_attention_forward(module, *block, mask, **options)[0])
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(BLOCK_ATTENTION, block_attention)
AttentionMaskInterface.register(
    BLOCK_ATTENTION, row_mask(sdpa_mask, lambda masks, pattern, _: tree_blocks(masks, pattern))
)
