"""What several processes that train together tell each other."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from gradatim.processes import process_count

WAIT = timedelta(days=30)
"""How long a process waits for the others: while one of them searches or measures, nothing else happens."""
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")

Value = TypeVar("Value")


def connect() -> None:
    """Connect this process with the others that its command started; nothing where it is alone or they are connected.

    Each process gets the accelerator of its number on its machine.
    """
    if process_count() > 1:
        from accelerate import PartialState

        PartialState(cpu=not torch.accelerator.is_available(), timeout=WAIT)


def of_first(value: Value) -> Value:
    """What the first process has, in all of them; it must be picklable. All processes call this at the same place."""
    if not _connected():
        return value
    values: list[Value] = [value]
    distributed.broadcast_object_list(values, src=0, group=_on_cpus())
    return values[0]


def weights_of_first(model: nn.Module) -> None:
    """Give a model the weights that it has in the first process. All processes call this at the same place."""
    if not _connected():
        return
    for weight in model.parameters():
        value = weight.detach().cpu()
        distributed.broadcast(value, src=0, group=_on_cpus())
        weight.data.copy_(value)


def has_lost_others(error: BaseException) -> bool:
    """Whether an error says that another process is no more."""
    if process_count() == 1:
        return False
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _GONE)
    )


def _connected() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@functools.cache
def _on_cpus() -> Any:
    """A group that waits without keeping an accelerator busy; the default one where that does so too."""
    return None if distributed.get_backend() == "gloo" else distributed.new_group(backend="gloo", timeout=WAIT)
