"""Load models and tokenizers from a hub id or a folder, with errors that say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from gradatim.errors import GradatimError
from gradatim.models import resolve_model


def load_model(auto_class: Any, name_or_path: str | Path, *, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    """``auto_class.from_pretrained``, for a hub id, a local folder, or ``shipped:NAME``.

    Raises:
        GradatimError: if there is no such model, it cannot be reached, the folder does not hold one, or it lacks
            weights that this kind of model needs.
    """
    name_or_path = _resolve(name_or_path)
    _check_folder(name_or_path, "config.json", "a model (it has no config.json)")
    try:
        loaded: tuple[PreTrainedModel, dict[str, Any]] = auto_class.from_pretrained(
            str(name_or_path), dtype=dtype, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise GradatimError(f"cannot load the model {str(name_or_path)!r}: {_first_line(error)}") from error
    model, information = loaded
    missing = sorted(information["missing_keys"])
    if missing:
        raise GradatimError(
            f"{str(name_or_path)!r} is no {type(model).__name__}: it lacks the weights {', '.join(missing[:3])}; "
            "name a model that was saved as one"
        )
    return model


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
        raise GradatimError(f"cannot load the tokenizer of {str(name_or_path)!r}: {_first_line(error)}") from error
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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
