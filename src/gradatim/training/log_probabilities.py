"""Log-probabilities of a row's tokens, for which the logits of all its predictions need not be in memory at once.

Logits are the largest tensors of training where the vocabulary is large: 2,048 predictions of 150,000 words are 1.2 GB
in float32, and their gradient is as much again. Here the model's own output layers make them of its last hidden states
part by part, once in the forward pass and again in the backward pass; of each part only one number a token stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradatim.engine.decoder import noted_hidden_states, outputs_of, replaced_forward
from gradatim.engine.heads import plain_model
from gradatim.training.rows import TrainingRow

_LOGITS = 1 << 26  # so many in memory at once cost nothing to speak of, and small vocabularies are read in one piece
_in_halves: WeakSet[nn.Module] = WeakSet()


def note_halves(model: nn.Module) -> None:
    """Note that a model's output layers make of its last hidden states what its whole forward pass gives."""
    _in_halves.add(plain_model(model))


def predictions_at_once(model: Any) -> int | None:
    """Of how many predictions a model's logits are in memory at once; ``None`` for all, whatever their number, of a
    model that is not known to compute them apart from the rest (:func:`note_halves`).

    The logits take no more memory than the output layer's weights: in smaller parts, going through those weights and
    their gradient for each part would cost more than its products.
    """
    if plain_model(model) not in _in_halves:
        return None
    config = plain_model(model).config.get_text_config()
    return max(int(config.hidden_size), _LOGITS // int(config.vocab_size))


@contextmanager
def log_probabilities_in_place_of_logits(model: Any, row: TrainingRow, at_once: int) -> Iterator[None]:
    """Let a model's forward pass over a row give the log-probabilities of its tokens, (1, T), for logits.

    All parts are computed within the model's own call, as whatever divides a model among devices expects. The last part
    is the first whose gradient is computed, so its logits are kept; those of the others are computed again.

    Args:
        model: the model, or what training laid around it.
        row: the row.
        at_once: predictions in a part.
    """
    inner = plain_model(model)
    own = inner.forward

    def forward(**inputs: Any) -> Any:
        with replaced_forward(inner, own):
            with noted_hidden_states(inner) as found:
                outputs = own(**inputs, logits_to_keep=row.predictors[:1])
            hidden = found[0][0]  # of a model that is spread over devices, on another than the row
            hidden = hidden.index_select(0, row.predictors.to(hidden.device))
            outputs.logits = _in_parts(inner, hidden, row, at_once).to(row.predictors.device)
        return outputs

    with replaced_forward(inner, forward):
        yield


def _in_parts(model: Any, hidden: Tensor, row: TrainingRow, at_once: int) -> Tensor:
    """Log-probabilities of the tokens, (1, T), from the last hidden states at the predictions, (K, hidden size)."""
    count = -(-len(hidden) // at_once)
    parts = torch.split(hidden, -(-len(hidden) // count))
    predictor_of, token_ids = row.predictor_of.to(hidden.device), row.token_ids.to(hidden.device)
    order = predictor_of.argsort(stable=True)
    rows, columns = predictor_of[order], token_ids[order]
    starts = torch.arange(len(parts) + 1, device=rows.device) * len(parts[0])
    bounds = torch.searchsorted(rows, starts).tolist()
    values = []
    for number, part in enumerate(parts):
        mine = slice(bounds[number], bounds[number + 1])
        arguments = model, part, rows[mine] - number * len(parts[0]), columns[mine]
        is_last = part is parts[-1]
        values.append(_of_hidden(*arguments) if is_last else checkpoint(_of_hidden, *arguments, use_reentrant=False))
    return torch.cat(values)[None, order.argsort()]


def _of_hidden(model: Any, hidden: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return selected_log_probabilities(outputs_of(model, hidden), rows, columns)


def selected_log_probabilities(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Log-softmax at some entries only, ``logits[rows, columns] - logsumexp(logits)[rows]``: (K, V) to (M,), in float32
    or, of logits that are more exact, as they are."""
    select: Any = _SelectedLogProbabilities.apply  # untyped in torch
    result: Tensor = select(logits, rows, columns)
    return result


class _SelectedLogProbabilities(torch.autograd.Function):
    """See :func:`selected_log_probabilities`.

    A log-softmax would keep a second tensor of the logits' size (in float32 a larger one) until the backward pass;
    here only the logits themselves and one number per row are kept.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """logits (K, V); rows (M,), columns (M,) -> (M,)."""
        normalizers = _logsumexp(logits)
        ctx.save_for_backward(logits, normalizers, rows, columns)
        return logits[rows, columns].to(normalizers.dtype) - normalizers[rows]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, normalizers, rows, columns = ctx.saved_tensors
        gradient = gradients[0]
        per_row = gradient.new_zeros(logits.shape[0]).index_add(0, rows, gradient)
        result = torch.empty_like(logits)
        for part in _slices(logits):
            softmax = (logits[part].to(normalizers.dtype) - normalizers[part, None]).exp_()
            result[part] = softmax.mul_(-per_row[part, None]).to(logits.dtype)
        result.index_put_((rows, columns), gradient.to(logits.dtype), accumulate=True)
        return result, None, None


def _slices(logits: Tensor, entries: int = 1 << 24) -> list[slice]:
    """Row slices of at most ``entries`` logits, so that copies in float32 stay small."""
    size = max(1, entries // logits.shape[1])
    return [slice(start, start + size) for start in range(0, logits.shape[0], size)]


def _logsumexp(logits: Tensor) -> Tensor:
    exact = torch.promote_types(logits.dtype, torch.float32)
    parts = [torch.logsumexp(logits[part].to(exact), dim=-1) for part in _slices(logits)]
    return torch.cat(parts) if parts else logits.new_zeros(0, dtype=exact)
