"""Which tokens of its path a token attends to: transformers' own mask functions, asked for places in a path.

A model makes its masks by transformers' ``create_causal_mask`` and its kin, which describe a mask by a function of the
query's and the key's index in the row (all that is before, a sliding window, a chunk) and leave it to the attention
implementation what to make of it. Gradatim's implementations keep the function and ask it for places in a *path*, so
windows and chunks reach back along the path of a token, whatever else lies in its row, and whatever kinds of layers a
model has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function

from gradatim.errors import GradatimError

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(batch index, head index, place of the query, place of the key), which are broadcast -> whether it is seen."""


class Uncut:
    """What stands for a mask of the tokens of a pass, for models that cut masks to those tokens when those are all."""

    def __getitem__(self, index: tuple[Any, ...]) -> Self:
        """The thing itself.

        Raises:
            GradatimError: if anything would be cut off.
        """
        if any(part not in (slice(None), slice(0, None)) for part in index):
            raise GradatimError("it cuts its masks to a part of the tokens")
        return self


@dataclass(frozen=True, eq=False)
class AttentionPattern(Uncut):
    """What a layer lets a token see of its path.

    Attributes:
        function: transformers' mask function; ``None`` where a token sees everything up to itself.
    """

    function: MaskFunction | None = None

    def sees(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Whether each query sees each key of the same path.

        Args:
            queries: (rows, n) places of the queries in their paths.
            keys: (rows, m) places of the keys.

        Returns:
            (rows, n, m), true where a key is seen.
        """
        query, key = queries[:, None, :, None], keys[:, None, None, :]
        if self.function is None:
            return (key <= query)[:, 0]
        first = torch.zeros((1, 1, 1, 1), dtype=torch.long, device=queries.device)
        shape = (queries.shape[0], 1, queries.shape[1], keys.shape[1])
        return self.function(first, first, query, key).expand(shape)[:, 0]


EVERYTHING = AttentionPattern()
"""A token sees all of its path up to itself."""


def pattern_of(mask_function: MaskFunction) -> AttentionPattern:
    """The pattern that a mask function of transformers describes."""
    return EVERYTHING if mask_function is causal_mask_function else AttentionPattern(mask_function)


def pattern_mask(*, mask_function: MaskFunction = causal_mask_function, **_: Any) -> AttentionPattern:
    """The mask of an attention implementation that works with patterns; see ``AttentionMaskInterface``."""
    return pattern_of(mask_function)
