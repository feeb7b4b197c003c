"""One forward pass over a packed row, and what objectives read off it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gradatim.engine.distributions import entropy
from gradatim.engine.heads import heads_of, plain_model, reading_heads
from gradatim.errors import GradatimError
from gradatim.objectives.base import Loss, Objective
from gradatim.objectives.quantities import Quantities
from gradatim.training.attention import check_attention
from gradatim.training.log_probabilities import (
    log_probabilities_in_place_of_logits,
    predictions_at_once,
    selected_log_probabilities,
)
from gradatim.training.row_masks import RowMasks, reading
from gradatim.training.rows import TrainingRow

_PREDICTIONS = 64  # distributions in float32 at once


def measured(model: nn.Module, row: TrainingRow, objective: Objective) -> Quantities:
    """What an objective reads of a row, in one forward pass.

    The output layer runs only where a prediction is needed (``logits_to_keep``).
    """
    attached = [name for name in objective.heads if name in heads_of(model)]
    judged = "log_probabilities" not in objective.needs and len(attached) == len(objective.heads)
    with reading_heads(model, attached, alone=judged) as found:
        if "log_probabilities" in objective.needs:
            log_probabilities = token_log_probabilities(model, row)
        else:
            whole = len(attached) < len(objective.heads)  # the outputs of a token classification model are a head
            logits = _logits(model, row, **({} if whole else {"logits_to_keep": row.predictors[:1]}))
            log_probabilities = logits.new_zeros(0)
    values = {name: found[name][0] for name in attached}
    if len(attached) < len(objective.heads):
        values["score"] = _score(logits)
    heads = {name: of[row.step_ends] for name, of in values.items()}
    heads |= {f"before:{name}": of[row.step_befores] for name, of in values.items()}
    heads |= {f"tokens:{name}": of[row.predictors[row.predictor_of]] for name, of in values.items()}
    given = {name: of if name in objective.needs else of[:0] for name, of in row.recorded().items()}
    return Quantities(**row.index(), log_probabilities=log_probabilities, **given, heads=heads)


def weighted_loss(
    model: nn.Module, row: TrainingRow, objective: Objective, normalizer: Tensor, *, refuse: bool = True
) -> tuple[Tensor, Loss]:
    """A row's share of an update's loss, in one forward pass, and what the objective said of each term.

    Args:
        model: the model.
        row: the row.
        objective: the loss.
        normalizer: the sum of the sizes of all terms of the update.
        refuse: a loss that is not a finite number. Otherwise its gradients are none either, whatever they would be, and
            whoever sums them up finds out.

    Raises:
        GradatimError: if the loss is not a finite number.
    """
    found = objective.loss(measured(model, row, objective))
    loss = (row.weight * found.per_term).sum() / normalizer.clamp(min=1e-12)
    if not refuse:
        return torch.where(loss.isfinite(), 1.0, torch.nan) * loss, found
    if not bool(loss.isfinite()):
        raise GradatimError(
            "the loss is not a finite number, so training would destroy the model; lower the learning rate, or "
            "compute in float32"
        )
    return loss, found


def is_token_classifier(model: Any) -> bool:
    """Whether a model's own outputs judge tokens, which is the head ``score``."""
    return type(plain_model(model)).__name__.endswith("ForTokenClassification")


def token_log_probabilities(model: nn.Module, row: TrainingRow) -> Tensor:
    """Log-probability of every scored token given its path, (T,), in float32 or, of models that are more exact, as
    they compute."""
    at_once = predictions_at_once(model)
    if at_once is not None and len(row.predictors) > at_once:
        with log_probabilities_in_place_of_logits(model, row, at_once):
            return _logits(model, row)
    logits = _logits(model, row, logits_to_keep=row.predictors)
    if logits.shape[0] != row.predictors.shape[0]:  # the model knows no such option and gives the outputs of all tokens
        logits = logits[row.predictors]
    return selected_log_probabilities(logits, row.predictor_of, row.token_ids)


@torch.no_grad()
def token_confidences(model: nn.Module, row: TrainingRow) -> Tensor:
    """How sure a model is before each scored token, (T,): 1 where only one token may follow, 0 where all are equally
    likely; one less the entropy of the next token over the largest that there is."""
    logits = _logits(model, row, logits_to_keep=row.predictors)
    if logits.shape[0] != row.predictors.shape[0]:
        logits = logits[row.predictors]
    entropies = [entropy(torch.log_softmax(part.float(), dim=-1)) for part in torch.split(logits, _PREDICTIONS)]
    confidences = (1 - torch.cat(entropies) / math.log(logits.shape[-1])).clamp(0, 1)
    return confidences[row.predictor_of]


def step_logits(model: nn.Module, row: TrainingRow) -> Tensor:
    """A reward model's logit at the last token of every step, (S,), in float32."""
    return _score(_logits(model, row))[row.step_ends]


def _score(logits: Tensor) -> Tensor:
    """The logit of "right" at every token, (L,), of a token classification model's outputs.

    A head with two labels gives the difference of "right" (1) and "wrong" (0), so that the sigmoid is the probability
    of "right" either way.
    """
    logits = logits.float()
    return logits[:, 0] if logits.shape[-1] == 1 else logits[:, 1] - logits[:, 0]


def packed_outputs(
    model: nn.Module, input_ids: Tensor, position_ids: Tensor, visible_until: Tensor, **options: Any
) -> Tensor:
    """The model's outputs for a packed row, (T, outputs), or for those tokens that ``options`` ask for.

    Args:
        model: the model, or a distributed wrapper of it.
        input_ids, position_ids, visible_until: (T,) see :class:`gradatim.training.packing.PackedRow`.
        options: passed to the model.

    Raises:
        GradatimError: see :func:`gradatim.training.attention.check_attention`; also if the model uses no masks.
    """
    unwrapped: Any = getattr(model, "module", model)  # a distributed wrapper has the model in `module`
    check_attention(unwrapped.config)
    ids = input_ids[None]
    # The mask shows everything; without one, transformers would take each branch of the row for another sequence.
    options |= {"attention_mask": torch.ones_like(ids), "position_ids": position_ids[None], "use_cache": False}
    with reading(RowMasks(position_ids, visible_until)):
        outputs: Tensor = model(input_ids=ids, **options).logits[0]
    return outputs


def _logits(model: nn.Module, row: TrainingRow, **options: Any) -> Tensor:
    return packed_outputs(model, row.input_ids, row.position_ids, row.visible_until, **options)
