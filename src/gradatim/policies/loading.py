"""Load models and tokenizers from a hub id or a folder, with errors that say what is wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from gradatim.errors import GradatimError
from gradatim.models import resolve_model

Quantization = Literal["8bit", "4bit"]


def placed(
    auto_class: Any,
    name_or_path: str | Path,
    *,
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
    device_map: str | dict[str, Any] | None = None,
    quantization: Quantization | None = None,
    **options: Any,
) -> PreTrainedModel:
    """A model where it is to run: on one device, spread over several, and in as few bits as asked.

    Args:
        auto_class: as for :func:`load_model`, which gets ``options`` too.
        name_or_path: the model.
        dtype: of the weights, and of what is computed.
        device: where the whole model runs.
        device_map: spreads the model over devices instead (``"auto"``, ``"balanced"`` or a map, as accelerate has it),
            for models that are too large for one; what fits nowhere stays in memory or on the disk until it is needed.
        quantization: load the weights in 8 or 4 bits with bitsandbytes.

    Raises:
        GradatimError: as :func:`load_model`; also if bitsandbytes is missing.
    """
    if quantization is not None:
        options["quantization_config"] = _bits(quantization, dtype)
        device_map = {"": device} if device_map is None else device_map
    if device_map is not None:
        return load_model(auto_class, name_or_path, dtype=dtype, device_map=device_map, **options)
    return load_model(auto_class, name_or_path, dtype=dtype, **options).to(device)


def _bits(quantization: Quantization, dtype: torch.dtype) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise GradatimError("quantized loading needs bitsandbytes; install it with: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def load_model(auto_class: Any, name_or_path: str | Path, *, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    """``auto_class.from_pretrained``, for a hub id, a local folder, or ``shipped:NAME``.

    Raises:
        GradatimError: if there is no such model, it cannot be reached, the folder does not hold one, or it lacks
            weights that this kind of model needs.
    """
    name_or_path = _resolve(name_or_path)
    if not (Path(name_or_path) / "adapter_config.json").is_file():  # an adapter names its base, which is loaded too
        _check_folder(name_or_path, "config.json", "a model (it has no config.json)")
    try:
        loaded: tuple[PreTrainedModel, dict[str, Any]] = auto_class.from_pretrained(
            str(name_or_path), dtype=dtype, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise GradatimError(f"cannot load the model {str(name_or_path)!r}: {first_line(error)}") from error
    model, information = loaded
    missing = sorted(information["missing_keys"])
    if missing:
        raise GradatimError(
            f"{str(name_or_path)!r} is no {type(model).__name__}: it lacks the weights {', '.join(missing[:3])}; "
            "name a model that was saved as one"
        )
    return model


def load_config(name_or_path: str | Path) -> Any:
    """``AutoConfig.from_pretrained``, for a hub id, a local folder, or ``shipped:NAME``; no remote code is run.

    Raises:
        GradatimError: if it cannot be loaded.
    """
    name_or_path = _resolve(name_or_path)
    _check_folder(name_or_path, "config.json", "a model (it has no config.json)")
    try:
        return AutoConfig.from_pretrained(str(name_or_path), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise GradatimError(f"cannot load the model {str(name_or_path)!r}: {first_line(error)}") from error


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """``AutoTokenizer.from_pretrained``, for a hub id, a local folder, or ``shipped:NAME``.

    Raises:
        GradatimError: if it cannot be loaded.
    """
    name_or_path = _resolve(name_or_path)
    _check_folder(name_or_path, "tokenizer_config.json", "a tokenizer (it has no tokenizer_config.json)")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(name_or_path))
    except (OSError, ValueError, KeyError) as error:
        raise GradatimError(f"cannot load the tokenizer of {str(name_or_path)!r}: {first_line(error)}") from error
    return tokenizer


def _resolve(name_or_path: str | Path) -> str | Path:
    return resolve_model(name_or_path) if isinstance(name_or_path, str) else name_or_path


def _check_folder(name_or_path: str | Path, needed: str, what: str) -> None:
    """Say at once that a folder is not what it should be; anything that is no folder may be a hub id."""
    path = Path(name_or_path).expanduser()
    looks_local = isinstance(name_or_path, Path) or str(name_or_path).startswith((".", "/", "~"))
    if path.is_dir() and not (path / needed).is_file():
        raise GradatimError(f"the folder {str(path)!r} does not hold {what}; name a folder made by save_pretrained")
    if looks_local and not path.is_dir():
        raise GradatimError(f"there is no folder {str(path)!r}; name a model folder or a hub id")


def first_line(error: Exception) -> str:
    """What an error of another library says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
