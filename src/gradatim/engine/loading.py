"""Load models and tokenizers from a hub id or a folder, with errors that say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from gradatim.engine.adapters import load_adapter, merge_adapter
from gradatim.engine.heads import load_heads
from gradatim.engine.quantization import Quantization, quantized
from gradatim.engine.sources import Source, base_of, find_source, load_from, of_base
from gradatim.errors import GradatimError

_TOKENIZER = "tokenizer_config.json"
_JUDGING_HEADS = ("score.", "classifier.", "v_head.")  # as classifiers and reward models call their heads


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
        in_bits = quantized(quantization, dtype, device)
        options["quantization_config"] = in_bits["quantization_config"]
        device_map = in_bits["device_map"] if device_map is None else device_map
    if device_map is not None:
        return load_model(auto_class, name_or_path, dtype=dtype, device_map=device_map, **options)
    return load_model(auto_class, name_or_path, dtype=dtype, **options).to(device)


def load_model(auto_class: Any, name_or_path: str | Path, *, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    """``auto_class.from_pretrained``, for a hub id, a local folder, or ``shipped:NAME``.

    An adapter is loaded onto the base that it names, and switched on; it is called ``"default"`` there. Heads that lie
    in a local folder are attached (:mod:`gradatim.engine.heads`).

    Raises:
        GradatimError: if there is no such model, it cannot be reached, the folder does not hold one, or it lacks
            weights that this kind of model needs, or is a reward model where a language model is asked for.
    """
    source = find_source(name_or_path)
    base = base_of(source)
    if base is not None:
        model = of_base(source, base, lambda name: load_model(auto_class, name, dtype=dtype, **options))
        load_adapter(model, source.name, "default")
        return model
    _check_folder(source, "config.json", "a model")
    loaded: tuple[PreTrainedModel, dict[str, Any]] = load_from(
        source,
        "the model",
        lambda name, **where: auto_class.from_pretrained(
            name, dtype=dtype, output_loading_info=True, **where, **options
        ),
    )
    model, information = loaded
    missing = sorted(information["missing_keys"])
    if missing:
        raise GradatimError(
            f"{source.name!r} is no {type(model).__name__}: it lacks the weights {', '.join(missing[:3])}; "
            "name a model that was saved as one"
        )
    judging = sorted(name for name in information["unexpected_keys"] if name.startswith(_JUDGING_HEADS))
    if judging and model.get_output_embeddings() is not None:  # tied ones lack nothing
        raise GradatimError(
            f"{source.name!r} judges and does not write: it has the weights {judging[0]} of a reward model; name a "
            "language model here"
        )
    if source.is_folder:
        load_heads(model, Path(source.name))
    return model


def load_merged_model(
    auto_class: Any, name_or_path: str | Path, *, dtype: torch.dtype, **options: Any
) -> PreTrainedModel:
    """As :func:`load_model`, but the weights of an adapter are added to those of its base.

    Raises:
        GradatimError: as :func:`load_model` and :func:`gradatim.engine.adapters.merge_adapter`; also if weights in few
            bits are asked for, to which none can be added.
    """
    source = find_source(name_or_path)
    base = base_of(source)
    if base is None:
        return load_model(auto_class, name_or_path, dtype=dtype, **options)
    if options:
        raise GradatimError(
            f"{source.name!r} is an adapter, which cannot be added to weights in few bits; name its base, or leave "
            "the quantization out"
        )
    return merge_adapter(of_base(source, base, lambda name: load_model(auto_class, name, dtype=dtype)), source.name)


def load_config(name_or_path: str | Path) -> Any:
    """``AutoConfig.from_pretrained``, for a hub id, a local folder, or ``shipped:NAME``; no remote code is run. An
    adapter has the configuration of its base.

    Raises:
        GradatimError: if it cannot be loaded.
    """
    source = find_source(name_or_path)
    base = base_of(source)
    if base is not None:
        return of_base(source, base, load_config)
    _check_folder(source, "config.json", "a model")
    return load_from(
        source, "the model", lambda name, **where: AutoConfig.from_pretrained(name, trust_remote_code=False, **where)
    )


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """``AutoTokenizer.from_pretrained``, for a hub id, a local folder, or ``shipped:NAME``. An adapter without a
    tokenizer has that of its base.

    Raises:
        GradatimError: if it cannot be loaded.
    """
    source = find_source(name_or_path)
    base = None if source.has(_TOKENIZER) else base_of(source)
    if base is not None:
        return of_base(source, base, load_tokenizer)
    _check_folder(source, _TOKENIZER, "a tokenizer")
    tokenizer: PreTrainedTokenizerBase = load_from(source, "the tokenizer of", AutoTokenizer.from_pretrained)
    return tokenizer


def _check_folder(source: Source, needed: str, what: str) -> None:
    """Say at once that a folder is not what it should be."""
    if source.is_folder and not source.has(needed):
        raise GradatimError(
            f"the folder {source.name!r} does not hold {what} (it has no {needed}); name a folder made by "
            "save_pretrained"
        )
