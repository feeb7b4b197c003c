"""How long a path a model reads as it would read it alone."""

from __future__ import annotations

from typing import Any

UNBOUNDED = 1 << 60


def longest_path(config: Any) -> int:
    """The most tokens that a path may have for a model to read it exactly; :data:`UNBOUNDED` where nothing is noted.

    That is what its positions go up to. Rotary frequencies of the kind "longrope" (Phi-3) change for *all* tokens of a
    pass once one of them lies past the original length, so what was cached before would no longer be right, and what
    lies in one batch with a long path would change; there the original length is the limit.
    """
    text = config.get_text_config()
    positions = int(getattr(text, "max_position_embeddings", None) or 0)
    limits = [positions if positions > 0 else UNBOUNDED]
    for rope in _rope_parameters(text):
        if rope.get("rope_type") == "longrope":
            original = rope.get("original_max_position_embeddings")
            limits.append(int(original or getattr(text, "original_max_position_embeddings", None) or UNBOUNDED))
    return min(limits)


def _rope_parameters(config: Any) -> list[dict[str, Any]]:
    """The parameters of each kind of rotary embedding that the model has: one for all layers, or one a layer type."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [each for each in (rope, *rope.values()) if isinstance(each, dict)]
