"""Attention over a tree's cached keys and values, for any unmodified transformers decoder.

The function :func:`tree_attention` is registered with transformers' ``AttentionInterface`` under
:data:`TREE_ATTENTION`. A forward pass runs inside :func:`attending`, which names the *plan* of that pass: where cached
keys and values lie and where new ones go. Two plans cover everything:

- :class:`SegmentPlan`: every row is a run of new tokens that follows a cached prefix of its own (prompts, recomputed
  nodes, steps to be scored);
- :class:`gradatim.policies.branch_attention.BranchPlan`: every row is one new token of one branch; what branches share
  is held once, beside what each has written itself (decoding).

Both are exact: each query attends to its ancestors and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

TREE_ATTENTION = "gradatim_tree"


class AttentionPlan(Protocol):
    """What one forward pass attends to."""

    @property
    def device(self) -> torch.device:
        """Where the cached keys and values lie."""
        ...

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None,
        softcap: float | None,
    ) -> Tensor:  # fmt: skip
        """Attention of one layer.

        Args:
            layer: index of the layer.
            query: (rows, heads, new, head size).
            key, value: (rows, key-value heads, new, head size).
            scaling: factor of the dot products.
            window: how far back a token sees, itself included; ``None`` for all the way.
            softcap: scores are squashed to within this by tanh, where given (Gemma 2).

        Returns:
            (rows, new, heads, head size).
        """
        ...


_active: ContextVar[AttentionPlan | None] = ContextVar("gradatim_attention_plan", default=None)


@contextmanager
def attending(plan: AttentionPlan) -> Iterator[None]:
    """Run forward passes of a model in tree attention with ``plan``."""
    token = _active.set(plan)
    try:
        yield
    finally:
        _active.reset(token)


def tree_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """The attention function that transformers calls; it hands over to the active plan.

    Of a model that is spread over several devices, all layers attend where the plan's cached keys and values lie.
    """
    plan = _active.get()
    if plan is None:
        raise RuntimeError("a model set to tree attention must run inside gradatim.policies.tree_attention.attending")
    scaling = options.get("scaling")
    here, home = query.device, plan.device
    output = plan.attend(
        int(getattr(module, "layer_idx")),  # noqa: B009 - set by every attention module, unknown to the type of nn.Module
        query.to(home),
        key.to(home),
        value.to(home),
        query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        options.get("sliding_window"),
        options.get("softcap"),
    )
    return output.to(here), None


AttentionInterface.register(TREE_ATTENTION, tree_attention)


@dataclass
class SegmentPlan:
    """New tokens after a cached prefix, a row each; rows are padded on the left, prefixes on the right.

    Attributes:
        prefix: (layers, 2, rows, key-value heads, longest prefix, head size), or ``None`` where no row has a prefix.
        prefix_lengths: (rows,) tokens of each row's prefix.
        lengths: (rows,) new tokens of each row.
        written: one (2, rows, key-value heads, new, head size) per layer: the new keys and values, in order of layers.
    """

    prefix: Tensor | None
    prefix_lengths: Tensor
    lengths: Tensor
    written: dict[int, Tensor] = field(default_factory=dict)
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.lengths.device

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None,
        softcap: float | None,
    ) -> Tensor:  # fmt: skip
        self.written[layer] = torch.stack((key, value))
        if self.prefix is not None:
            key = torch.cat((self.prefix[layer, 0], key), dim=2)
            value = torch.cat((self.prefix[layer, 1], value), dim=2)
        mask = self._mask(query.shape[2], window)
        if softcap is None:
            output = nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
            )
        else:
            output = _softcapped_attention(query, key, value, mask, scaling, softcap)
        return output.transpose(1, 2)

    def _mask(self, new: int, window: int | None) -> Tensor:
        """(rows, 1, new, prefix + new), true where a query sees a key. Padding sees itself, to stay finite."""
        if window not in self._masks:
            device = self.lengths.device
            places = torch.arange(new, device=device)
            padding = (new - self.lengths)[:, None]  # (rows, 1)
            real = places >= padding  # (rows, new)
            causal = places[:, None] >= places
            own = (causal & real[:, None, :]) | torch.eye(new, dtype=torch.bool, device=device)
            positions = self.prefix_lengths[:, None] + places - padding  # (rows, new)
            if window is not None:
                own = own & (positions[:, :, None] - positions[:, None, :] < window)
            if self.prefix is not None:
                past = torch.arange(self.prefix.shape[4], device=device)
                seen = (past < self.prefix_lengths[:, None])[:, None, :].expand(-1, new, -1) & real[:, :, None]
                if window is not None:
                    seen = seen & (positions[:, :, None] - past < window)
                own = torch.cat((seen, own), dim=2)
            self._masks[window] = own[:, None]
        return self._masks[window]


def _softcapped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, softcap: float
) -> Tensor:
    """Attention with squashed scores; shapes as in :meth:`SegmentPlan.attend`, the result (rows, heads, new, size)."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scores = torch.tanh(query @ key.transpose(2, 3) * (scaling / softcap)) * softcap
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1, dtype=torch.float32)
    return weights.to(value.dtype) @ value
