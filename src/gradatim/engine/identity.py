"""What tells one tokenizer from another, and one policy from another, wherever they were loaded from."""

from __future__ import annotations

import hashlib
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ENDS = 8  # weights of each tensor that are looked at, from either end: training changes all of them

_known: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def tokenizer_identity(tokenizer: Any) -> str:
    """A name for what token ids mean: tokenizers that share it read the same ids as the same text."""
    if tokenizer not in _known:
        vocabulary = sorted((int(place), str(token)) for token, place in tokenizer.get_vocab().items())
        _known[tokenizer] = hashlib.sha256(repr(vocabulary).encode()).hexdigest()[:16]
    return _known[tokenizer]


def weights_identity(model: PreTrainedModel, adapter: str = "") -> str:
    """A name for a model with its weights as they are now and the adapter in use: the same in every process and
    folder, another one after training. It is the model's type and a digest of some weights of every tensor."""
    digest = hashlib.sha256(adapter.encode())
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        if weight.device.type != "meta":
            flat = weight.detach().flatten()
            for part in (flat[:_ENDS], flat[-_ENDS:]):
                digest.update(part.float().cpu().numpy().tobytes())
    return f"{model.config.model_type}-{digest.hexdigest()[:12]}"
