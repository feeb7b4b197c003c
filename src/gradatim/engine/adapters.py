"""Low-rank adapters on a loaded model: added once, then switched without loading anything again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from gradatim.engine.sources import ADAPTER_CONFIG, Source, adapter_config, find_source, first_line, load_from
from gradatim.errors import GradatimError
from gradatim.hub import fetched_file

_PROMPTS = frozenset(
    {"ADAPTION_PROMPT", "CPT", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "PROMPT_TUNING"}
)
_TRIED = "tried"  # an adapter's name while it is looked at
_WEIGHTS = "adapter_model.safetensors"


def load_adapter(model: PreTrainedModel, source: str | Path, name: str) -> None:
    """Add an adapter in ``peft``'s layout to a model, under a name, and switch to it.

    Args:
        model: the base.
        source: a local folder or a hub id.
        name: what :func:`use_adapter` calls it.

    Raises:
        GradatimError: if it cannot be loaded, is of a kind that does not run here, was made for another base, or the
            name is taken.
    """
    if name in adapters(model):
        raise GradatimError(f"the model has an adapter {name!r} already; give the new one another name")
    place = _find(source)
    _check_kind(model, place)
    _check_sizes(model, place)

    def load(source: str, **where: bool) -> Any:
        # What is of another size is told apart below; without this, transformers prints a table of it.
        return model.load_adapter(source, adapter_name=name, ignore_mismatched_sizes=True, adapter_kwargs=where)

    try:
        loaded = load_from(place, "the adapter", load)
    except GradatimError as error:
        _remove(model, name)
        if "not found in the base model" in str(error.__cause__):
            raise _other_base(model, source) from error
        raise
    restored = _restore_magnitudes(model, place, name)
    missing = {key for key in loaded.missing_keys if f".{name}." in key} - restored
    unexpected = {f"{key}.weight" for key in loaded.unexpected_keys} - restored
    if loaded.mismatched_keys or missing or unexpected:
        _remove(model, name)
        ranks = {(size[0], own[0]) for key, size, own in loaded.mismatched_keys if ".lora_A." in key}
        if any(rank != stated for rank, stated in ranks):
            rank, stated = next((rank, stated) for rank, stated in sorted(ranks) if rank != stated)
            raise GradatimError(
                f"the adapter {place.name!r} has weights of rank {rank}, and its {ADAPTER_CONFIG} says {stated}; "
                "save it again"
            )
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


def _check_kind(model: PreTrainedModel, source: Source) -> None:
    """Refuse an adapter of a kind that does not run here, or of another kind of model."""
    from peft import PeftType

    config = adapter_config(source)
    if not source.has(_WEIGHTS):
        raise GradatimError(
            f"{source.name!r} holds no {_WEIGHTS}, where the weights of an adapter are; load it with peft and "
            "save it again"
        )
    kind, task = str(config.get("peft_type")), str(config.get("task_type"))
    if kind not in set(PeftType):
        raise GradatimError(
            f"the adapter {source.name!r} is of the kind {kind!r}, which the installed peft does not know; install a "
            "newer one (pip install --upgrade peft)"
        )
    if kind in _PROMPTS:
        raise GradatimError(
            f"the adapter {source.name!r} is of the kind {kind!r}, which puts trained vectors before the text; what "
            "runs here changes weights, as LoRA and IA3 do"
        )
    if task in ("TOKEN_CLS", "SEQ_CLS") and type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        raise GradatimError(
            f"the adapter {source.name!r} was made for a classifier ({task}), such as a reward model, and "
            f"{_config_name(model)} is loaded as a language model; name an adapter of a language model"
        )


def _restore_magnitudes(model: PreTrainedModel, source: Source, name: str) -> set[str]:
    """Load the magnitudes of a DoRA adapter (Liu et al., 2024, arXiv:2402.09353), which transformers leaves untouched.

    Returns:
        The keys that were loaded.
    """
    own = dict(model.named_parameters())
    restored: set[str] = set()
    for key, weight in _weights(source):
        parameter = f"{key}.{name}.weight"
        if key.endswith(".lora_magnitude_vector") and parameter in own:
            own[parameter].data.copy_(weight)
            restored.add(parameter)
    return restored


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
    return ((key, weight) for key, weight in _weights(source) if ".lora_" not in key)


def _weights(source: Source) -> Iterator[tuple[str, Tensor]]:
    """The weights of an adapter, by their names in the model."""
    path = Path(source.name) / _WEIGHTS if source.is_folder else fetched_file(source.name, _WEIGHTS)
    if path is None or not Path(path).is_file():
        return
    try:
        with safe_open(path, framework="pt") as weights:
            for key in weights.keys():  # noqa: SIM118
                yield key.removeprefix("base_model.model."), weights.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise GradatimError(f"cannot load the adapter {source.name!r}: {first_line(error)}") from error


def _by(size: tuple[int, ...]) -> str:
    return " by ".join(map(str, size))


def _remove(model: PreTrainedModel, name: str) -> None:
    if name in adapters(model):
        model.delete_adapter(name)


def _other_base(model: PreTrainedModel, source: str | Path) -> GradatimError:
    return GradatimError(
        f"the adapter {str(source)!r} was made for another base than {_config_name(model)}; name the model that it was "
        "trained on"
    )


def _config_name(model: PreTrainedModel) -> str:
    return repr(model.config.name_or_path or type(model).__name__)
