"""Attention over packed rows block by block: each block of queries meets only those keys that any of them sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from gradatim.engine.attention_pattern import AttentionPattern, Uncut
from gradatim.training.row_masks import RowMasks, row_mask

BLOCK_ATTENTION = "gradatim_tree_blocks"  # the name under which transformers knows it
_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"  # what scaled_dot_product_attention calls on a CPU
_KERNELS: tuple[Callable[..., Any], Callable[..., Any]] | None = None
if hasattr(torch.ops.aten, _KERNEL):
    _KERNELS = getattr(torch.ops.aten, _KERNEL), getattr(torch.ops.aten, f"{_KERNEL}_backward")
_BLOCK = 128  # queries in a block: fewer make many small calls, more attend to what no query of the block sees


class TreeBlocks(Uncut):
    """Which keys each block of queries can see at all: most of a packed row is other branches and other trees.

    Attention over a row of ``T`` tokens by a mask computes ``T * T`` scores. Here the row's queries are divided into
    blocks, and each meets only those keys that some query of the block sees, still under the exact mask.

    Args:
        parts: per block its first query, one past its last query, the row positions of its keys (n,), and the mask
            (1, 1, queries, n), true where a key is seen.
    """

    def __init__(self, parts: list[tuple[int, int, Tensor, Tensor]]) -> None:
        self.parts = parts
        self._added: dict[torch.dtype, list[Tensor]] = {}

    def added(self, dtype: torch.dtype) -> list[Tensor]:
        """Per block the mask as what is added to the scores, made once for all layers."""
        if dtype not in self._added:
            self._added[dtype] = [
                torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
                for *_, mask in self.parts
            ]
        return self._added[dtype]


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
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary positions may be of a higher precision
    if _KERNELS is not None and query.device.type == "cpu" and _is_plain(query, value, options):
        run: Any = _BlockAttention.apply  # untyped in torch
        output = run(query, key, value, attention_mask, options.get("scaling"))
        return output.transpose(1, 2), None
    options["is_causal"] = False
    outputs = []
    queries = torch.split(query, [stop - start for start, stop, *_ in attention_mask.parts], dim=2)
    for own, (*_, keys, mask) in zip(queries, attention_mask.parts, strict=True):
        block = own, key.index_select(2, keys), value.index_select(2, keys)
        outputs.append(sdpa_attention_forward(module, *block, mask, **options)[0])
    return torch.cat(outputs, dim=1), None


def _is_plain(query: Tensor, value: Tensor, options: dict[str, Any]) -> bool:
    """Whether PyTorch would use its fused kernels for CPUs."""
    others = (options.get(name) for name in ("position_bias", "cache", "softcap"))
    return query.shape[-1] == value.shape[-1] and not options.get("dropout") and all(each is None for each in others)


class _BlockAttention(torch.autograd.Function):
    """Attention of all blocks of a row by PyTorch's fused kernels for CPUs.

    What autograd would keep for each block are copies of the keys and values that it meets, most of which many blocks
    meet. Here the row's own are kept, and copied again in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: TreeBlocks, scale: float | None) -> Tensor:
        """query (1, heads, T, size); key, value (1, key heads, T, size) -> (1, heads, T, size)."""
        assert _KERNELS is not None
        found = []
        for (start, stop, keys, _), mask in zip(blocks.parts, blocks.added(query.dtype), strict=True):
            met = (_met(each, keys, query.shape[1]) for each in (key, value))
            found.append(_KERNELS[0](query[:, :, start:stop], *met, attn_mask=mask, scale=scale))
        output = torch.cat([each[0] for each in found], dim=2)
        ctx.save_for_backward(query, key, value, output, *(each[1] for each in found))
        ctx.blocks, ctx.scale = blocks, scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        assert _KERNELS is not None
        query, key, value, output, *sums = ctx.saved_tensors
        of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        masks = ctx.blocks.added(query.dtype)
        for (start, stop, keys, _), mask, weights in zip(ctx.blocks.parts, masks, sums, strict=True):
            own = slice(None), slice(None), slice(start, stop)
            met = (_met(each, keys, query.shape[1]) for each in (key, value))
            inputs = gradients[0][own], query[own], *met, output[own], weights, 0.0, False
            of_own, *of_met = _KERNELS[1](*inputs, attn_mask=mask, scale=ctx.scale)
            of_query[own] = of_own
            for total, part in zip((of_key, of_value), of_met, strict=True):
                total.index_add_(2, keys, part.unflatten(1, (total.shape[1], -1)).sum(dim=2))
        return of_query, of_key, of_value, None, None


def _met(tensor: Tensor, keys: Tensor, heads: int) -> Tensor:
    """The keys or values that a block meets, for each head of its queries."""
    met, repeats = tensor.index_select(2, keys), heads // tensor.shape[1]
    return met if repeats == 1 else met.repeat_interleave(repeats, dim=1)


AttentionInterface.register(BLOCK_ATTENTION, block_attention)
AttentionMaskInterface.register(
    BLOCK_ATTENTION, row_mask(sdpa_mask, lambda masks, pattern, _: tree_blocks(masks, pattern))
)
