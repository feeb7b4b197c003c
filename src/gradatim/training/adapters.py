"""Low-rank adapters: put around a model that is to be trained, and checked before anything costs time."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from gradatim.engine.head_shape import HeadShape
from gradatim.engine.heads import attach_heads, head_modules, heads_of, plain_model
from gradatim.engine.loading import load_model
from gradatim.engine.quantization import check_quantization
from gradatim.errors import GradatimError
from gradatim.training.forward import is_token_classifier
from gradatim.training.process_reward_model import load_process_reward_model
from gradatim.training.settings import LoraSettings

_HEADS = ("score", "classifier")  # a reward model's head is trained whole
_ADAPTABLE = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D)


def add_adapters(model: Any, settings: LoraSettings, *, heads: Collection[str] = ()) -> Any:
    """The model with trainable low-rank adapters; its own weights are frozen, and heads are trained whole.

    Args:
        model: a causal language model with those heads, or a token classification model.
        settings: of the adapters.
        heads: the heads to train, by name.

    Raises:
        GradatimError: as :func:`check_lora_modules`.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    check_lora_modules(model, settings)
    targets = settings.target_modules if isinstance(settings.target_modules, str) else list(settings.target_modules)
    for_logits = is_token_classifier(model)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # it may be any number
        lora_dropout=settings.dropout,
        target_modules=targets,
        exclude_modules=_outside(model) if for_logits or heads_of(model) else None,
        modules_to_save=[place for name, place in head_modules(model).items() if name in heads] or None,
        task_type=TaskType.TOKEN_CLS if for_logits else TaskType.CAUSAL_LM,
    )
    return get_peft_model(model, config)


def check_bits(model: Any, lora: LoraSettings | None) -> None:
    """Check that a model has its weights in as few bits as adapters are to be trained on, and that they can be.

    Raises:
        GradatimError: if not.
    """
    wanted = None if lora is None else lora.quantization
    found = next((bits for bits in ("8bit", "4bit") if getattr(model, f"is_loaded_in_{bits}", False)), None)
    if found != wanted:
        raise GradatimError(
            f"the weights of the model are {'whole' if found is None else f'in {found}'} and the quantization of lora "
            f"is {wanted}; load the model as lora says (gradatim.engine.quantization.quantized), or change that"
        )
    if wanted is not None:
        check_quantization(wanted, next(model.parameters()).device)


def merged(model: Any, source: str | Path, heads: Mapping[str, HeadShape]) -> Any:
    """A trained model with its adapters merged into its weights; one without adapters as it is.

    Adapters on weights in few bits are merged into the weights as they are in ``source``, in float32: what rounding
    took from those does not get into the result.

    Args:
        model: the model.
        source: the folder or hub id that it was loaded from.
        heads: that it was trained with, by name.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    inner = plain_model(model)
    if not getattr(inner, "is_quantized", False):
        return model.merge_and_unload()
    if is_token_classifier(inner):
        whole = load_process_reward_model(source, labels=inner.config.num_labels)
    else:
        whole = load_model(AutoModelForCausalLM, source, dtype=torch.float32)
        attach_heads(whole, heads)
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    adapted: Any = get_peft_model(whole, model.peft_config["default"])
    set_peft_model_state_dict(adapted, get_peft_model_state_dict(model))
    return adapted.merge_and_unload()


def _outside(model: Any) -> str:
    """A pattern of the modules that get no adapters: heads, and the layers within them."""
    names = [re.escape(name) for name in (*_HEADS, *head_modules(model).values())]
    return rf"(.*\.)?({'|'.join(names)})(\..*)?"


def check_lora_modules(model: nn.Module, settings: LoraSettings) -> None:
    """Check that the model has each module that adapters are asked for.

    Only the names and kinds of the modules are looked at, so a model without weights will do, which costs nothing to
    make: ``with torch.device("meta"): AutoModelForCausalLM.from_config(config)``.

    Raises:
        GradatimError: if a name fits no module, or only modules of a kind that cannot be adapted; it names those that
            can.
    """
    if settings.target_modules == "all-linear":
        return
    modules = {name: module for name, module in model.named_modules() if name.split(".")[-1] not in _HEADS}
    targets = settings.target_modules
    for wanted in (targets,) if isinstance(targets, str) else targets:
        found = [module for name, module in modules.items() if _fits(wanted, name, isinstance(targets, str))]
        if not any(isinstance(module, _ADAPTABLE) for module in found):
            reason = "fits no module of the model" if not found else "is of a kind that cannot be adapted"
            names = sorted({name.split(".")[-1] for name, module in modules.items() if isinstance(module, _ADAPTABLE)})
            raise GradatimError(
                f"the LoRA target module {wanted!r} {reason}; choose from {', '.join(names)}, or 'all-linear'"
            )


def _fits(wanted: str, name: str, is_pattern: bool) -> bool:
    """Whether peft would take a module of this name: one string is a pattern, several are names or ends of names."""
    if is_pattern:
        try:
            return re.fullmatch(wanted, name) is not None
        except re.error as error:
            raise GradatimError(f"the LoRA target modules {wanted!r} are no valid pattern: {error}") from error
    return name == wanted or name.endswith(f".{wanted}")
