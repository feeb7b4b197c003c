"""Llama 4's scale of queries, which goes by a token's place in the row, put right to its place in the path.

In layers without rotary positions Llama 4 multiplies queries by a number that grows with the position, by steps of
``floor_scale`` tokens ("attention temperature tuning"). transformers counts these positions along the row of a pass,
which is right where a row is one path, read from its beginning.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def rescaled_queries(module: nn.Module, query: Tensor, positions: Tensor) -> Tensor:
    """Queries scaled by their places in their paths, for a layer that scales them by their places in the row.

    Args:
        module: the attention layer; of any other kind, queries are returned as they are.
        query: (rows, heads, new, head size).
        positions: (rows, new) places in the paths.
    """
    if not getattr(module, "attn_temperature_tuning", False) or getattr(module, "use_rope", True):
        return query
    step, rate = float(getattr(module, "floor_scale")), float(getattr(module, "attn_scale"))  # noqa: B009

    def scale(places: Tensor) -> Tensor:
        return torch.log1p(torch.floor((places.float() + 1.0) / step)) * rate + 1.0

    row = torch.arange(query.shape[2], device=positions.device)
    factor = (scale(positions) / scale(row)).to(query.device)
    return (query * factor[:, None, :, None]).to(query.dtype)


def longest_row(config: Any) -> int | None:
    """The longest row in which a model of this configuration scales all queries by one; ``None`` for any length."""
    text = config.get_text_config()
    if not getattr(text, "attn_temperature_tuning", False) or all(getattr(text, "no_rope_layers", None) or (1,)):
        return None
    return int(text.floor_scale) - 1
