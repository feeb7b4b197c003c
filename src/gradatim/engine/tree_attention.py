"""Attention over a tree's cached keys and values, for any unmodified transformers decoder.

The function :func:`tree_attention` is registered with transformers' ``AttentionInterface`` under
:data:`TREE_ATTENTION`. A forward pass runs inside :func:`attending`, which names the *plan* of that pass: where cached
keys and values lie and where new ones go. Two plans cover everything:

- :class:`gradatim.engine.row_attention.RowPlan`: one row of new tokens of trees, after what is cached of their paths
  (prompts, recomputed nodes, steps to be read);
- :class:`gradatim.engine.branch_attention.BranchPlan`: every row is one new token of one branch; what branches share
  is held once, beside what each has written itself (decoding).

Both are exact: each query attends to its ancestors and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from gradatim.engine.attention_pattern import EVERYTHING, AttentionPattern, pattern_mask
from gradatim.engine.query_scale import rescaled_queries
from gradatim.errors import GradatimError

TREE_ATTENTION = "gradatim_tree"

_WITHOUT_EFFECT = frozenset(
    {
        "cache_position", "deterministic", "is_causal", "kwargs", "logits_to_keep", "output_attentions",
        "output_hidden_states", "output_router_logits", "position_ids", "return_dict", "sliding_window", "use_cache",
    }
)  # fmt: skip
"""Options of an attention function that change nothing here: the pattern says what is seen, windows included."""


@dataclass(frozen=True)
class Weighting:
    """How a layer makes weights of queries and keys.

    Attributes:
        scaling: factor of the dot products.
        pattern: which tokens of its path a token sees.
        softcap: scores are squashed to within this by tanh, where given (Gemma 2).
        sinks: (heads,) one more score for each head, which takes a share of the weight and has no value, where given
            (gpt-oss).
    """

    scaling: float
    pattern: AttentionPattern = EVERYTHING
    softcap: float | None = None
    sinks: Tensor | None = None


class AttentionPlan(Protocol):
    """What one forward pass attends to."""

    @property
    def device(self) -> torch.device:
        """Where the cached keys and values lie."""
        ...

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, weighting: Weighting) -> Tensor:
        """Attention of one layer.

        Args:
            layer: index of the layer.
            query: (rows, heads, new, head size).
            key, value: (rows, key-value heads, new, head size).
            weighting: how weights are made of them.

        Returns:
            (rows, new, heads, head size).

        Raises:
            GradatimError: if the layer has attended in this pass already.
        """
        ...


_active: ContextVar[tuple[AttentionPlan, Tensor] | None] = ContextVar("gradatim_attention_plan", default=None)


@contextmanager
def attending(plan: AttentionPlan, positions: Tensor) -> Iterator[None]:
    """Run a forward pass of a model in tree attention with ``plan``; ``positions`` (rows, new) are those of its
    tokens in their paths."""
    token = _active.set((plan, positions))
    try:
        yield
    finally:
        _active.reset(token)


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: AttentionPattern | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sinks: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls; it hands over to the active plan.

    Of a model that is spread over several devices, all layers attend where the plan's cached keys and values lie.

    Args:
        module: the attention layer.
        query: (rows, heads, new, head size).
        key: (rows, key-value heads, new, head size).
        value: as ``key``, or of another size.
        attention_mask: what :func:`gradatim.engine.attention_pattern.pattern_mask` made; ``None`` of a model that
            asks for no mask.
        scaling: factor of the dot products; by default that of the head size.
        dropout: of the weights, which must be none.
        softcap, s_aux, sinks: see :class:`Weighting`; models call the sinks by either name.
        options: anything else that a model hands over; what would change the result is refused.

    Returns:
        (rows, new, heads, size of the values), and no attention weights.

    Raises:
        GradatimError: if the model asks for something that is not known here.
    """
    active = _active.get()
    if active is None:
        raise RuntimeError("a model set to tree attention must run inside gradatim.engine.tree_attention.attending")
    plan, positions = active
    layer = getattr(module, "layer_idx", None)
    if layer is None:
        raise GradatimError("its layers of attention do not say which they are")
    if not isinstance(attention_mask, AttentionPattern | None):
        raise GradatimError("it makes a mask of its own for its attention")
    refuse_unknown(options, dropout)
    here, home = query.device, plan.device
    sinks = s_aux if sinks is None else sinks
    weighting = Weighting(
        scaling=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        pattern=EVERYTHING if attention_mask is None else attention_mask,
        softcap=softcap,
        sinks=None if sinks is None else sinks.to(home),
    )
    size = max(key.shape[-1], value.shape[-1])  # of both, with zeros, which add nothing to products and sums
    output = plan.attend(
        int(layer),
        _widened(rescaled_queries(module, query, positions), size).to(home),
        _widened(key, size).to(home),
        _widened(value, size).to(home),
        weighting,
    )
    return output[..., : value.shape[-1]].to(here), None


def refuse_unknown(options: Mapping[str, Any], dropout: float) -> None:
    """Refuse what a model hands its attention and what attention over trees does not know.

    Raises:
        GradatimError: if one of the options would change the result.
    """
    unknown = [name for name, given in options.items() if name not in _WITHOUT_EFFECT and given is not None]
    if dropout:
        unknown.append("dropout")
    if unknown:
        raise GradatimError(f"it hands its attention the option {unknown[0]!r}, which tree attention does not know")


def _widened(tensor: Tensor, size: int) -> Tensor:
    missing = size - tensor.shape[-1]
    return nn.functional.pad(tensor, (0, missing)) if missing else tensor


AttentionInterface.register(TREE_ATTENTION, tree_attention)
AttentionMaskInterface.register(TREE_ATTENTION, pattern_mask)


def own_part(keys_values: Tensor, like: Tensor) -> Tensor:
    """Of what is kept of a layer (..., heads, tokens, size), as many heads and as much of their size as the layer has.

    What is kept has the largest sizes of all layers. ``like`` is a (rows, heads, tokens, size) of the layer.
    """
    _, heads, _, size = like.shape
    return keys_values[..., :heads, :, :size]


def attends_again(layer: int) -> GradatimError:
    """The refusal of a layer whose keys and values of a pass would take the place of those it had made before."""
    return GradatimError(f"its layer {layer} attends more than once in a pass")
