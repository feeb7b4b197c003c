"""By which attention a model may read packed trees, and by which it does so in the least time."""

from __future__ import annotations

from typing import Any

from gradatim.engine.tree_attention import TREE_ATTENTION
from gradatim.errors import GradatimError
from gradatim.training.block_attention import BLOCK_ATTENTION
from gradatim.training.flex_attention import FLEX_ATTENTION

_IMPLEMENTATIONS = ("sdpa", "eager", BLOCK_ATTENTION, FLEX_ATTENTION)


def quicker_attention(model: Any) -> str | None:
    """The attention implementation by which a model may read packed rows in less time than by its own, if there is one.

    On a CPU that is blocks, for models that use transformers' scaled dot-product attention. On accelerators one call is
    quicker than many small ones: there it is FlexAttention, also for models whose scores are squashed or have sinks,
    which attend eagerly otherwise. A model that is spread over several devices keeps its own.
    """
    own = model.config.get_text_config()._attn_implementation
    device = next(model.parameters()).device.type
    if device == "cpu":
        return BLOCK_ATTENTION if own == "sdpa" else None
    spread = hasattr(model, "hf_device_map") and len(set(model.hf_device_map.values())) > 1
    return FLEX_ATTENTION if own in ("sdpa", "eager") and not spread else None


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
