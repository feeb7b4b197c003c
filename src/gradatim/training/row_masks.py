"""Which tokens of a packed row see which, for whatever attention a model is read by.

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
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

from gradatim.engine.attention_pattern import AttentionPattern, pattern_of
from gradatim.engine.tree_row import TreeRow
from gradatim.errors import GradatimError


class RowMasks(TreeRow):
    """Which tokens of a packed row see which, asked for by a model's layers; see :class:`TreeRow` for arguments.

    Attributes:
        used: whether the model has asked for a mask.
    """

    used = False

    def whole(self, pattern: AttentionPattern) -> Tensor:
        """(1, 1, T, T), true where a token is seen."""
        return self.sees(pattern, self.places, self.places)[None, None]


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


def row_mask(otherwise: Callable[..., Any], make: Callable[[RowMasks, AttentionPattern, Any], Any]) -> Any:
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


# transformers' own implementations keep their masks wherever no packed row is read.
AttentionMaskInterface.register("sdpa", row_mask(sdpa_mask, lambda masks, pattern, _: masks.whole(pattern)))
AttentionMaskInterface.register("eager", row_mask(eager_mask, _additive))
