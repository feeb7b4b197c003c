"""Trees in one row of tokens: which tokens see which, and which of them a few queries can see at all."""

from __future__ import annotations

import torch
from torch import Tensor

from gradatim.engine.attention_pattern import EVERYTHING, AttentionPattern


class TreeRow:
    """Nodes of trees, laid out once each in depth-first order.

    The subtree of a node is one contiguous stretch, so the token at the place ``q`` sees the one at ``k`` exactly when
    ``k <= q < visible_until[k]``, as far as the layer's pattern lets it see that far back in its path.

    Args:
        positions: (T,) each token's place in its path.
        visible_until: (T,) one past the last place of the row that may see the token.
    """

    def __init__(self, positions: Tensor, visible_until: Tensor) -> None:
        self.positions = positions
        self.visible_until = visible_until
        self.places = torch.arange(len(positions), device=positions.device)

    def sees(self, pattern: AttentionPattern, queries: Tensor, keys: Tensor) -> Tensor:
        """(n, m), true where the token at the place ``queries[i]`` sees that at ``keys[j]``; of several rows of queries
        and keys (rows, n) and (rows, m), those of the same row: (rows, n, m)."""
        query, key = queries[..., :, None], keys[..., None, :]
        on_path = (key <= query) & (query < self.visible_until[keys][..., None, :])
        if pattern is EVERYTHING:
            return on_path
        rows = (self.positions[places if places.ndim > 1 else places[None]] for places in (queries, keys))
        return on_path & pattern.sees(*rows).reshape(on_path.shape)

    def met(self, pattern: AttentionPattern, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Which of ``keys`` (m,) any of a few ``queries`` (n,) sees: their indices (k,) and the mask (n, k). Both are
        places in ascending order."""
        near = ((keys <= queries[-1]) & (self.visible_until[keys] > queries[0])).nonzero()[:, 0]
        seen = self.sees(pattern, queries, keys[near])
        met = seen.any(dim=0)
        return near[met], seen[:, met]
