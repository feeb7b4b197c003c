"""Low-rank adapters on a loaded model: added once, then switched without loading anything again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from gradatim.errors import GradatimError
from gradatim.hub import fetched_file
from gradatim.policies.sources import ADAPTER_CONFIG, Source, find_source, first_line, load_from

_TRIED = "tried"  # an adapter's name while it is looked at
_WEIGHTS = "adapter_model.safetensors"


def load_adapter(model: PreTrainedModel, source: str | Path, name: str) -> None:
    """Add an adapter in ``peft``'s layout to a model, under a name, and switch to it.

    Args:
        model: the base.
        source: a local folder or a hub id.
        name: what :func:`use_adapter` calls it.

    Raises:
        GradatimError: if it cannot be loaded, was made for another base, or the name is taken.
    """
    if name in adapters(model):
        raise GradatimError(f"the model has an adapter {name!r} already; give the new one another name")
    place = _find(source)
    _check_sizes(model, place)

    def load(source: str, **where: bool) -> Any:
        # What is of another size is told apart below; without this, transformers prints a table of it.
        return model.load_adapter(source, adapter_name=name, ignore_mismatched_sizes=True, adapter_kwargs=where)

    try:
        loaded = load_from(place, "the adapter", load)
    except GradatimError as error:
        _remove(model, name)
        if isinstance(error.__cause__, ValueError | RuntimeError):  # its modules are not there
            raise _other_base(model, source) from error
        raise
    missing = [key for key in loaded.missing_keys if f".{name}." in key]
    if missing or loaded.unexpected_keys or loaded.mismatched_keys:
        _remove(model, name)
        raise _other_base(model, source)


def merge_adapter(model: PreTrainedModel, source: str | Path) -> PreTrainedModel:
    """The model with an adapter's weights added to its own.

    Raises:
        GradatimError: as :func:`load_adapter`.
    """
    from peft import PeftModel

    load_adapter(model, source, _TRIED)  # which sees what does not fit
    _remove(model, _TRIED)
    place = _find(source)
    adapted = load_from(place, "the adapter", lambda name, **where: PeftModel.from_pretrained(model, name, **where))
    merged: PreTrainedModel = adapted.merge_and_unload()
    now = merged.state_dict()
    for name, weight in _whole_weights(place):
        if name in now and not torch.equal(weight.to(now[name]), now[name]):
            raise GradatimError(
                f"the adapter {place.name!r} cannot be merged into its base, which ties its {name} to another weight; "
                "merge it into an untied copy and name that"
            )
    return merged.requires_grad_()


def use_adapter(model: PreTrainedModel, name: str | None) -> None:
    """Switch to one of the loaded adapters, or to the base model alone with ``None``.

    Raises:
        GradatimError: if there is no such adapter.
    """
    known = adapters(model)
    if name is not None and name not in known:
        raise GradatimError(f"the model has no adapter {name!r}; loaded are: {', '.join(known) or 'none'}")
    if not known:
        return
    if name is None:
        model.disable_adapters()
    else:
        model.enable_adapters()
        model.set_adapter(name)


def adapters(model: PreTrainedModel) -> list[str]:
    """The names of the loaded adapters."""
    return list(getattr(model, "peft_config", {}))


def _find(name_or_path: str | Path) -> Source:
    source = find_source(name_or_path)
    if not source.has(ADAPTER_CONFIG):
        raise GradatimError(
            f"{source.name!r} is not an adapter (it has no {ADAPTER_CONFIG}); name one that peft's save_pretrained made"
        )
    return source


def _check_sizes(model: PreTrainedModel, source: Source) -> None:
    """Refuse an adapter with whole weights of other sizes than the model's, before they take the place of its own.

    Such are the embeddings of a vocabulary that was extended.
    """
    own = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    for name, weight in _whole_weights(source):
        size = tuple(weight.shape)
        if own.get(name, size) != size:
            raise GradatimError(
                f"the adapter {source.name!r} was made for a model of other sizes: its {name} is {_by(size)}, the "
                f"base's {_by(own[name])}; name the model that it was trained on, with its vocabulary as it was then"
            )


def _whole_weights(source: Source) -> Iterator[tuple[str, Tensor]]:
    """The weights of an adapter that take the place of a weight of the model, by that weight's name."""
    path = Path(source.name) / _WEIGHTS if source.is_folder else fetched_file(source.name, _WEIGHTS)
    if path is None or not Path(path).is_file():
        return
    try:
        with safe_open(path, framework="pt") as weights:
            for key in weights.keys():  # noqa: SIM118
                if ".lora_" not in key:
                    yield key.removeprefix("base_model.model."), weights.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise GradatimError(f"cannot load the adapter {source.name!r}: {first_line(error)}") from error


def _by(size: tuple[int, ...]) -> str:
    return " by ".join(map(str, size))


def _remove(model: PreTrainedModel, name: str) -> None:
    if name in adapters(model):
        model.delete_adapter(name)


def _other_base(model: PreTrainedModel, source: str | Path) -> GradatimError:
    base = model.config.name_or_path or type(model).__name__
    return GradatimError(
        f"the adapter {str(source)!r} was made for another base than {base!r}; name the model that it was trained on"
    )
