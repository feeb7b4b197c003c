"""The attention masks that make an unmodified decoder model read packed trees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradatim.errors import GradatimError

_MASKED_IMPLEMENTATIONS = ("sdpa", "eager")


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
    text = config.get_text_config()
    _check_implementation(text)
    rows = torch.arange(position_ids.shape[0], device=position_ids.device)
    tree = (rows[None, :] <= rows[:, None]) & (rows[:, None] < visible_until[None, :])
    if hasattr(text, "layer_types"):
        return {
            kind: _additive(_restrict(tree, kind, text, position_ids), dtype)
            for kind in sorted(set(text.layer_types))
        }
    if getattr(text, "sliding_window", None) is not None:
        tree = _restrict(tree, "sliding_attention", text, position_ids)
    elif getattr(text, "attention_chunk_size", None) is not None:
        tree = _restrict(tree, "chunked_attention", text, position_ids)
    return _additive(tree, dtype)


def _restrict(tree: Tensor, kind: str, config: Any, position_ids: Tensor) -> Tensor:
    """Lay a layer type's own pattern over the tree."""
    query, key = position_ids[:, None], position_ids[None, :]
    if kind == "full_attention":
        return tree
    if kind == "sliding_attention":
        return tree & (query - key < config.sliding_window)
    if kind == "chunked_attention":
        size = config.attention_chunk_size
        return tree & (query // size == key // size)
    raise GradatimError(
        f"this model has layers of the type {kind!r}, which carry a state from token to token and cannot read a packed "
        "tree; choose a model whose layers are all attention"
    )


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(mask, zero, torch.finfo(dtype).min)[None, None]


def _check_implementation(config: Any) -> None:
    implementation = config._attn_implementation
    if implementation not in _MASKED_IMPLEMENTATIONS:
        raise GradatimError(
            f"the attention implementation {implementation!r} cannot take the mask of a packed tree; load the model "
            "with attn_implementation='sdpa' (or 'eager')"
        )
