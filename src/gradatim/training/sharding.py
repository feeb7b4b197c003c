"""Models whose weights are divided among processes (FSDP2): how they are read whole, and written.

Every process calls these functions at the same place, since each has only a part. Of a model that is not divided they
read and write the weights as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from gradatim.processes import is_first


def whole(weight: Tensor) -> Tensor:
    """A copy of the whole of a weight, on the CPU."""
    value = weight.detach()
    return (value.full_tensor() if isinstance(value, DTensor) else value).to("cpu", copy=True)


def write(weight: Tensor, value: Tensor) -> None:
    """Give a weight a value, of which each process keeps its part."""
    with torch.no_grad():
        if isinstance(weight, DTensor):
            value = distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
        weight.copy_(value)


def without_weights(model: nn.Module) -> nn.Module:
    """A copy of a model, of whose weights it has the shapes alone until :func:`fill` gives it some."""
    shapes: dict[int, Any] = {
        id(weight): shape for weight, shape in zip(model.parameters(), _shapes(model), strict=True)
    }
    return copy.deepcopy(model, shapes)


def fill(blank: nn.Module, model: nn.Module, device: torch.device) -> None:
    """Give the copy that :func:`without_weights` made of a model the weights that the model has now."""
    _put(blank, (nn.Parameter(whole(weight).to(device), weight.requires_grad) for weight in model.parameters()))
    blank.to(device)  # what it has beside weights


@contextmanager
def readable(model: nn.Module, blank: nn.Module | None, device: torch.device) -> Iterator[nn.Module]:
    """The model as the first process can run it alone.

    Args:
        model: the model.
        blank: a copy without weights of a model that is divided, which the first process gets for a while; ``None`` for
            a model that every process has whole.
        device: where the first process runs it.
    """
    if blank is None:
        yield model
        return
    if is_first():
        fill(blank, model, device)
    else:
        for weight in model.parameters():
            whole(weight)
    try:
        yield blank
    finally:
        _put(blank, list(_shapes(blank)))


def allocate(blank: nn.Module) -> None:
    """Give the copy that :func:`without_weights` made room for weights, which have no values yet."""
    _put(
        blank,
        (
            nn.Parameter(torch.empty_like(each, device="cpu"), each.requires_grad) if each.is_meta else each
            for each in blank.parameters()
        ),
    )


def _shapes(model: nn.Module) -> Iterator[nn.Parameter]:
    """The weights on no device; those in few bits as they are, since they are more than their numbers."""
    for weight in model.parameters():
        if weight.is_floating_point():
            yield nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
        else:
            yield weight


def _put(model: nn.Module, weights: Iterable[nn.Parameter]) -> None:
    """Put other weights in the place of a model's, in their order; those that are shared stay so."""
    new = {id(old): weight for old, weight in zip(model.parameters(), weights, strict=True)}
    for module in list(model.modules()):
        for name, old in list(module.named_parameters(recurse=False)):
            setattr(module, name, new[id(old)])
