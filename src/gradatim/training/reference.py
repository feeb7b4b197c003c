"""Reference log-probabilities of a model: computed once for every row, before its first update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from gradatim.errors import GradatimError
from gradatim.training.forward import token_confidences, token_log_probabilities
from gradatim.training.rows import TrainingRow
from gradatim.training.self_check import blockwise_attention

Reference = Literal["tree", "initial", "base"] | nn.Module


@contextmanager
def reference_model(model: nn.Module, reference: Reference, device: torch.device) -> Iterator[nn.Module]:
    """The model that gives reference log-probabilities, in evaluation mode; the trained model is left as it was.

    Raises:
        GradatimError: if ``"base"`` is asked of a model without adapters, or the name is not known.
    """
    target: Any = model if isinstance(reference, str) else reference
    training = target.training
    target.to(device).eval()
    try:
        if reference == "base":
            if not hasattr(target, "disable_adapter"):
                raise GradatimError("the reference 'base' needs a model with adapters; use 'initial' or 'tree' instead")
            with target.disable_adapter():
                yield target
        elif reference == "initial" or isinstance(reference, nn.Module):
            yield target
        else:
            raise GradatimError(f"the reference {reference!r} is not known; use 'tree', 'initial', 'base' or a model")
    finally:
        target.train(training)


def with_reference(
    model: nn.Module, rows: Sequence[TrainingRow], device: torch.device, *, confidence: bool = False
) -> list[TrainingRow]:
    """The rows with the log-probabilities that ``model`` gives their scored tokens as their reference, and on request
    with how sure it is before each."""
    result = []
    with torch.no_grad(), blockwise_attention(model):
        for row in rows:
            moved = row.to(device)
            found = replace(row, reference=token_log_probabilities(model, moved).float().cpu())
            result.append(replace(found, confidence=token_confidences(model, moved).cpu()) if confidence else found)
    return result
