"""Weights in 8 or 4 bits, by bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch

from gradatim.errors import GradatimError

Quantization = Literal["8bit", "4bit"]
# Heads are small, and one that is still to be trained has to stay as precise as it is.
_WHOLE = ["lm_head", "score", "classifier"]


def quantized(quantization: Quantization, dtype: torch.dtype, device: str | torch.device) -> dict[str, Any]:
    """What ``from_pretrained`` takes to load a model's weights in few bits onto a device.

    Args:
        quantization: how many.
        dtype: of what is computed.
        device: where.

    Raises:
        GradatimError: if bitsandbytes is missing.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise GradatimError("quantized loading needs bitsandbytes; install it with: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_WHOLE)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=_WHOLE
        )
    return {"quantization_config": config, "device_map": {"": device}}


def check_quantization(quantization: Quantization, device: str | torch.device) -> None:
    """Check that gradients pass through weights in few bits on a device, also after the model was run without any.

    Raises:
        GradatimError: if bitsandbytes is missing, or fails there.
    """
    quantized(quantization, torch.float32, device)
    import bitsandbytes

    kind = bitsandbytes.nn.Linear8bitLt if quantization == "8bit" else bitsandbytes.nn.Linear4bit
    options = {"has_fp16_weights": False} if quantization == "8bit" else {"quant_type": "nf4"}
    try:
        layer = kind(64, 64, bias=False, **options).requires_grad_(False).to(device)
        before = _gradient(layer, device)
        with torch.no_grad():
            layer.eval()(torch.ones(2, 64, device=device))
        torch.testing.assert_close(_gradient(layer, device), before)
    except Exception as error:  # of any kind, by what is missing
        raise GradatimError(
            f"bitsandbytes cannot train through weights of {quantization} on the device {str(device)!r} here "
            f"({str(error).strip().splitlines()[0]}); leave the quantization out, or use another device"
        ) from error


def _gradient(layer: Any, device: str | torch.device) -> torch.Tensor:
    given = torch.ones(2, 64, device=device, requires_grad=True)
    layer.train()(given).square().sum().backward()
    assert given.grad is not None, "no gradients pass through"
    return given.grad
