"""How an unmodified decoder model reads packed trees: by masks, or block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from gradatim.errors import GradatimError
from gradatim.policies.tree_attention import TREE_ATTENTION

BLOCK_ATTENTION = "gradatim_tree_blocks"  # the name under which transformers knows blockwise attention
_MASKED_IMPLEMENTATIONS = ("sdpa", "eager")
_BLOCK = 128  # queries in a block: fewer make many small calls, more attend to what no query of the block sees


def tree_attention_mask(
    config: Any, position_ids: Tensor, visible_until: Tensor, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """The additive masks that show every token its own path, in the form in which the model takes them.

    transformers passes a ready mask of four dimensions to the attention as it is, and a dictionary by layer type where
    layers differ. Sliding windows and chunks are laid over the tree by position ids: the window of a token reaches
    back along its path, and the row between holds other branches.

    Args:
        config: the model's configuration.
        position_ids: (T,) each token's place in its path.
        visible_until: (T,) one past the last row position that may attend to the token.
        dtype: the type in which the attention computes.

    Returns:
        One (1, 1, T, T) mask, zero where a token is seen and the type's lowest number elsewhere; or such masks by
        layer type.

    Raises:
        GradatimError: if the model has layers that no mask can restrict to a path.
    """
    check_attention(config)
    text = config.get_text_config()
    rows = torch.arange(position_ids.shape[0], device=position_ids.device)
    tree = (rows[None, :] <= rows[:, None]) & (rows[:, None] < visible_until[None, :])
    if hasattr(text, "layer_types"):
        return {
            kind: _additive(_restrict(tree, kind, text, position_ids), dtype) for kind in sorted(set(text.layer_types))
        }
    if getattr(text, "sliding_window", None) is not None:
        tree = _restrict(tree, "sliding_attention", text, position_ids)
    elif getattr(text, "attention_chunk_size", None) is not None:
        tree = _restrict(tree, "chunked_attention", text, position_ids)
    return _additive(tree, dtype)


class TreeBlocks:
    """Which keys each block of queries can see at all: most of a packed row is other branches and other trees.

    Attention over a row of ``T`` tokens by a mask computes ``T * T`` scores. Here the row's queries are divided into
    blocks, and each meets only those keys that some query of the block sees, still under the exact mask.

    Attributes:
        parts: per block its first query, one past its last query, the row positions of its keys (n,), and the additive
            mask (1, 1, queries, n).
        used: whether an attention layer has read them; a model that drops keyword arguments never does.
    """

    def __init__(self, visible_until: Tensor, dtype: torch.dtype) -> None:
        self.used = False
        self.parts: list[tuple[int, int, Tensor, Tensor]] = []
        rows = torch.arange(visible_until.shape[0], device=visible_until.device)
        for start in range(0, rows.shape[0], _BLOCK):
            queries = rows[start : start + _BLOCK]
            stop = start + queries.shape[0]
            keys = ((rows < stop) & (visible_until > start)).nonzero()[:, 0]
            seen = (keys[None, :] <= queries[:, None]) & (queries[:, None] < visible_until[keys][None, :])
            self.parts.append((start, stop, keys, _additive(seen, dtype)))


def block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree_blocks: TreeBlocks | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' scaled dot-product attention, block by block where a packed row is read.

    Args:
        module: the attention layer.
        query: (1, heads, T, head size).
        key, value: (1, key heads, T, head size).
        attention_mask: used without ``tree_blocks``, that is when the model reads something else than a packed row.
        tree_blocks: the row's blocks.
        options: as transformers passes them.

    Returns:
        (1, T, heads, head size), and no attention weights.
    """
    if tree_blocks is None:
        output: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]
        return output, None
    tree_blocks.used = True
    options["is_causal"] = False
    outputs = []
    for start, stop, keys, mask in tree_blocks.parts:
        block = query[:, :, start:stop], key.index_select(2, keys), value.index_select(2, keys)
        outputs.append(sdpa_attention_forward(module, *block, mask, **options)[0])
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(BLOCK_ATTENTION, block_attention)
AttentionMaskInterface.register(BLOCK_ATTENTION, sdpa_mask)


@contextmanager
def blockwise_attention(model: Any) -> Iterator[None]:
    """Let the model attend block by block while this lasts, where that is faster and the same.

    That is on a CPU, for models that use transformers' scaled dot-product attention in full in every layer. On
    accelerators one masked call is quicker than many small ones.
    """
    config = model.config.get_text_config()
    plain = (
        config._attn_implementation == "sdpa"
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and getattr(config, "attention_chunk_size", None) is None
        and (hasattr(config, "layer_types") or getattr(config, "sliding_window", None) is None)
        and next(model.parameters()).device.type == "cpu"
    )
    if not plain:
        yield
        return
    model.set_attn_implementation(BLOCK_ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def unused_mask(config: Any, like: Tensor) -> Tensor | dict[str, Tensor]:
    """What stands in for the masks that blockwise attention does not read; keeps the model from making its own."""
    mask = torch.zeros(1, 1, 1, 1, dtype=like.dtype, device=like.device)
    text = config.get_text_config()
    return dict.fromkeys(text.layer_types, mask) if hasattr(text, "layer_types") else mask


def check_attention(config: Any) -> None:
    """Check that a model can read packed trees as it is loaded.

    Raises:
        GradatimError: if a policy or scorer has replaced its attention, or its attention takes no mask.
    """
    implementation = config.get_text_config()._attn_implementation
    if implementation == TREE_ATTENTION:
        raise GradatimError(
            "a policy or scorer runs this model with its attention replaced, so it cannot be trained; load a second "
            "copy of it to train"
        )
    if implementation not in _MASKED_IMPLEMENTATIONS:
        raise GradatimError(
            f"the attention implementation {implementation!r} cannot take the mask of a packed tree; load the model "
            "with attn_implementation='sdpa' (or 'eager')",
            options=("attn_implementation='sdpa'",),
        )


def _restrict(tree: Tensor, kind: str, config: Any, position_ids: Tensor) -> Tensor:
    """Lay a layer type's own pattern over the tree."""
    query, key = position_ids[:, None], position_ids[None, :]
    if kind == "full_attention":
        return tree
    if kind == "sliding_attention":
        window: int = config.sliding_window
        return tree & (query - key < window)
    if kind == "chunked_attention":
        size: int = config.attention_chunk_size
        return tree & (query // size == key // size)
    raise GradatimError(
        f"this model has layers of the type {kind!r}, which carry a state from token to token and cannot read a packed "
        "tree; choose a model whose layers are all attention"
    )


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(mask, zero, torch.finfo(dtype).min)[None, None]
