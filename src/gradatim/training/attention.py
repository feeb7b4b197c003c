"""How an unmodified decoder model reads packed trees: by masks, or block by block.

A model asks transformers for its masks; while a packed row is read (:func:`reading`), it gets the row's. Each layer's
own pattern, a sliding window or a chunk, is asked for places in the path of a token, since the row between holds other
branches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

from gradatim.engine.attention_pattern import AttentionPattern, pattern_of
from gradatim.engine.tree_attention import TREE_ATTENTION
from gradatim.engine.tree_row import TreeRow
from gradatim.errors import GradatimError

BLOCK_ATTENTION = "gradatim_tree_blocks"  # the name under which transformers knows blockwise attention
_IMPLEMENTATIONS = ("sdpa", "eager", BLOCK_ATTENTION)
_BLOCK = 128  # queries in a block: fewer make many small calls, more attend to what no query of the block sees


class RowMasks(TreeRow):
    """Which tokens of a packed row see which, asked for by a model's layers; see :class:`TreeRow` for arguments.

    Attributes:
        used: whether the model has asked for a mask.
    """

    used = False

    def whole(self, pattern: AttentionPattern) -> Tensor:
        """(1, 1, T, T), true where a token is seen."""
        return self.sees(pattern, self.places, self.places)[None, None]

    def blocks(self, pattern: AttentionPattern) -> TreeBlocks:
        """The row in blocks of queries."""
        parts = []
        for start in range(0, len(self.places), _BLOCK):
            queries = self.places[start : start + _BLOCK]
            keys, seen = self.met(pattern, queries, self.places)
            parts.append((start, start + len(queries), keys, seen[None, None]))
        return TreeBlocks(parts)


class TreeBlocks:
    """Which keys each block of queries can see at all: most of a packed row is other branches and other trees.

    Attention over a row of ``T`` tokens by a mask computes ``T * T`` scores. Here the row's queries are divided into
    blocks, and each meets only those keys that some query of the block sees, still under the exact mask.

    Attributes:
        parts: per block its first query, one past its last query, the row positions of its keys (n,), and the mask
            (1, 1, queries, n), true where a key is seen.
    """

    def __init__(self, parts: list[tuple[int, int, Tensor, Tensor]]) -> None:
        self.parts = parts


_read: ContextVar[RowMasks | None] = ContextVar("gradatim_packed_row", default=None)


@contextmanager
def reading(masks: RowMasks) -> Iterator[None]:
    """Run a model's forward pass over a packed row.

    Raises:
        GradatimError: at the end, if the model never asked for a mask.
    """
    token = _read.set(masks)
    try:
        yield
    finally:
        _read.reset(token)
    if not masks.used:
        raise GradatimError("it does not ask transformers for the masks of its attention")


def _mask_function(otherwise: Callable[..., Any], make: Callable[[RowMasks, AttentionPattern, Any], Any]) -> Any:
    """A mask function for ``AttentionMaskInterface``: the packed row's mask, made by ``make`` from the row, the layer's
    pattern and the type of the model's activations; ``otherwise`` where no packed row is read."""

    def mask(**options: Any) -> Any:
        masks = _read.get()
        if masks is None:
            return otherwise(**options)
        masks.used = True
        return make(masks, pattern_of(options["mask_function"]), options.get("dtype"))

    return mask


def _additive(masks: RowMasks, pattern: AttentionPattern, dtype: torch.dtype) -> Tensor:
    mask = masks.whole(pattern)
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(mask, zero, torch.finfo(dtype).min)


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
    BLOCK_ATTENTION, _mask_function(sdpa_mask, lambda masks, pattern, _: masks.blocks(pattern))
)
# transformers' own implementations keep their masks wherever no packed row is read.
AttentionMaskInterface.register("sdpa", _mask_function(sdpa_mask, lambda masks, pattern, _: masks.whole(pattern)))
AttentionMaskInterface.register("eager", _mask_function(eager_mask, _additive))


def quicker_attention(model: Any) -> str | None:
    """The attention implementation by which a model may read packed rows in less time than by its own, if there is one.

    On a CPU that is blocks, for models that use transformers' scaled dot-product attention. On accelerators one call
    with a dense mask of the whole row is quicker than many small ones; an implementation with a sparse mask is chosen
    here.
    """
    if model.config.get_text_config()._attn_implementation != "sdpa":
        return None
    return BLOCK_ATTENTION if next(model.parameters()).device.type == "cpu" else None


def check_attention(config: Any) -> None:
    """Check that a model can read packed trees as it is loaded.

    Raises:
        GradatimError: if a policy or scorer has replaced its attention, or its attention takes no mask.
    """
    implementation = config.get_text_config()._attn_implementation
    if implementation == TREE_ATTENTION:
        raise GradatimError(
            "a policy or scorer runs this model with its attention replaced, so it cannot be trained; load a second "
            "copy of it to train, or lend it (gradatim.engine.lending.trainable)"
        )
    if implementation not in _IMPLEMENTATIONS:
        raise GradatimError(
            f"the attention implementation {implementation!r} cannot take the mask of a packed tree; load the model "
            "with attn_implementation='sdpa' (or 'eager')",
            options=("attn_implementation='sdpa'",),
        )
