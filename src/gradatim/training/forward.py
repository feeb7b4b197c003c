"""One forward pass over a packed row, and what objectives read off it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradatim.training.attention import tree_attention_mask
from gradatim.training.examples import TrainingRow


def token_log_probabilities(model: nn.Module, row: TrainingRow) -> Tensor:
    """Log-probability of every scored token given its path, (M,), in float32.

    The output layer runs only where a prediction is needed (``logits_to_keep``).
    """
    output = model(**_inputs(model, row), logits_to_keep=row.predictors)
    logits = output.logits[0]
    result: Tensor = _SelectedLogProbabilities.apply(logits, row.predictor_of, row.token_ids)
    return result


def step_logits(model: nn.Module, row: TrainingRow) -> Tensor:
    """A reward model's logit at the last token of every group, (G,), in float32.

    A head with two labels gives the difference of "right" (1) and "wrong" (0), so that the sigmoid is the probability
    of "right" either way.
    """
    logits = model(**_inputs(model, row)).logits[0, row.group_ends].float()
    return logits[:, 0] if logits.shape[-1] == 1 else logits[:, 1] - logits[:, 0]


def _inputs(model: nn.Module, row: TrainingRow) -> dict[str, Any]:
    device = row.input_ids.device
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    config: Any = getattr(model, "module", model).config  # a distributed wrapper has the model in `module`
    return {
        "input_ids": row.input_ids[None],
        "position_ids": row.position_ids[None],
        "attention_mask": tree_attention_mask(config, row.position_ids, row.visible_until, dtype),
        "use_cache": False,
    }


class _SelectedLogProbabilities(torch.autograd.Function):
    """Log-softmax at some entries only: ``logits[rows, columns] - logsumexp(logits)[rows]``.

    A log-softmax would keep a second tensor of the logits' size (in float32 a larger one) until the backward pass;
    here only the logits themselves and one number per row are kept.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """logits (K, V); rows (M,), columns (M,) -> (M,) in float32."""
        normalizers = _logsumexp(logits)
        ctx.save_for_backward(logits, normalizers, rows, columns)
        return logits[rows, columns].float() - normalizers[rows]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, normalizers, rows, columns = ctx.saved_tensors
        gradient = gradients[0]
        per_row = gradient.new_zeros(logits.shape[0]).index_add(0, rows, gradient)
        result = torch.empty_like(logits)
        for part in _parts(logits):
            softmax = (logits[part].float() - normalizers[part, None]).exp_()
            result[part] = softmax.mul_(-per_row[part, None]).to(logits.dtype)
        result.index_put_((rows, columns), gradient.to(logits.dtype), accumulate=True)
        return result, None, None


def _parts(logits: Tensor, entries: int = 1 << 24) -> list[slice]:
    """Row slices of at most ``entries`` logits, so that float32 copies stay small."""
    size = max(1, entries // logits.shape[1])
    return [slice(start, start + size) for start in range(0, logits.shape[0], size)]


def _logsumexp(logits: Tensor) -> Tensor:
    parts = [torch.logsumexp(logits[part].float(), dim=-1) for part in _parts(logits)]
    return torch.cat(parts) if parts else logits.new_zeros(0, dtype=torch.float32)
