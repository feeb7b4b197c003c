"""Low-rank adapters on a loaded model: added once, then switched without loading anything again."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedModel

from gradatim.errors import GradatimError
from gradatim.policies.loading import first_line


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
    try:
        loaded = model.load_adapter(str(source), adapter_name=name)
    except (OSError, SafetensorError) as error:
        raise GradatimError(f"cannot load the adapter {str(source)!r}: {first_line(error)}") from error
    except (ValueError, RuntimeError) as error:  # its modules are not there, or of other sizes
        _remove(model, name)
        raise _other_base(model, source) from error
    missing = [key for key in loaded.missing_keys if f".{name}." in key]
    if missing or loaded.unexpected_keys or loaded.mismatched_keys:
        _remove(model, name)
        raise _other_base(model, source)


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


def _remove(model: PreTrainedModel, name: str) -> None:
    if name in adapters(model):
        model.delete_adapter(name)


def _other_base(model: PreTrainedModel, source: str | Path) -> GradatimError:
    base = model.config.name_or_path or type(model).__name__
    return GradatimError(
        f"the adapter {str(source)!r} was made for another base than {base!r}; name the model that it was trained on"
    )
