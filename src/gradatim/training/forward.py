"""One forward pass over a packed row, and what objectives read off it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradatim.training.attention import BLOCK_ATTENTION, TreeBlocks, tree_attention_mask, unused_mask
from gradatim.training.examples import TrainingRow


def token_log_probabilities(model: nn.Module, row: TrainingRow) -> Tensor:
    """Log-probability of every scored token given its path, (M,), in float32.

    The output layer runs only where a prediction is needed (``logits_to_keep``).
    """
    logits = _logits(model, row, logits_to_keep=row.predictors)
    select: Any = _SelectedLogProbabilities.apply  # untyped in torch
    result: Tensor = select(logits, row.predictor_of, row.token_ids)
    return result


def step_logits(model: nn.Module, row: TrainingRow) -> Tensor:
    """A reward model's logit at the last token of every group, (G,), in float32.

    A head with two labels gives the difference of "right" (1) and "wrong" (0), so that the sigmoid is the probability
    of "right" either way.
    """
    logits = _logits(model, row)[row.group_ends].float()
    return logits[:, 0] if logits.shape[-1] == 1 else logits[:, 1] - logits[:, 0]


def _logits(model: nn.Module, row: TrainingRow, **options: Any) -> Tensor:
    """The model's output for a row, without the batch dimension."""
    device = row.input_ids.device
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    unwrapped: Any = getattr(model, "module", model)  # a distributed wrapper has the model in `module`
    options |= {"input_ids": row.input_ids[None], "position_ids": row.position_ids[None], "use_cache": False}
    if unwrapped.config.get_text_config()._attn_implementation == BLOCK_ATTENTION:
        blocks = TreeBlocks(row.visible_until, dtype)
        mask = unused_mask(unwrapped.config, row.input_ids)
        logits: Tensor = model(**options, attention_mask=mask, tree_blocks=blocks).logits[0]
        if blocks.used:
            return logits
        unwrapped.set_attn_implementation("sdpa")  # the model hands its attention no keyword arguments
    masks = tree_attention_mask(unwrapped.config, row.position_ids, row.visible_until, dtype)
    return torch.as_tensor(model(**options, attention_mask=masks).logits[0])


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
