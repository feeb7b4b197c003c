"""The trainer: packed rows through a model, an objective over what comes out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from gradatim.engine.path_length import longest_path
from gradatim.errors import GradatimError
from gradatim.objectives.base import Objective
from gradatim.supervision.terms import Term
from gradatim.training.checkpoints import CheckpointTrainer, checkpoints
from gradatim.training.even_rows import EvenSampler, evened
from gradatim.training.forward import weighted_loss
from gradatim.training.precision import mixed_precision_removed
from gradatim.training.preparation import (
    check_fit,
    check_heads,
    check_recorded,
    disable_dropout,
    left_out,
    prepared_terms,
)
from gradatim.training.reference import Reference, reference_model, with_reference
from gradatim.training.rows import TrainingRow, build_row, plan_rows
from gradatim.training.self_check import blockwise_attention, check_training


class TreeTrainer(CheckpointTrainer):
    """A :class:`transformers.Trainer` whose batches are packed rows of trees.

    The terms are divided into rows once (:func:`~gradatim.training.rows.plan_rows`); the order of the rows is shuffled
    anew in every epoch. An update's loss is the sum over its terms divided by their total size, however many rows and
    devices they are spread over. Everything else (mixed precision, checkpoints, resuming, adapters,
    distributed training) is the base class's.

    Args:
        model: a causal language model that has the objective's heads, or a token classification model for objectives
            that read its score.
        args: with a batch size of 1, since a batch is one row; its other settings apply as they are.
        objective: the loss.
        terms: what to learn from.
        tokens_per_row: packed tokens in one row at most.
        reference: where reference log-probabilities come from. ``"tree"``: recorded when the steps were sampled, by
            one policy for all of them;
            ``"initial"``: this model as it is now; ``"base"``: this model without its adapters; or another model.
            All are computed once, before the first update.
        callbacks: as in the base class.

    Raises:
        GradatimError: if there are no terms or the objective cannot learn from one, the model lacks a head, the trees
            hold no log-probabilities that ``reference`` needs or hold those of several policies, the tokens do not fit
            the model, or the model reads packed rows as something else than their paths (see
            :mod:`gradatim.training.self_check`).
    """

    control: Any
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        objective: Objective,
        terms: Sequence[Term],
        tokens_per_row: int = 2048,
        reference: Reference = "tree",
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        if args.per_device_train_batch_size != 1:
            raise GradatimError("a batch is one packed row: set per_device_train_batch_size to 1, and tokens_per_row")
        if not terms:
            raise GradatimError("there is nothing to learn from: the list of terms is empty")
        check_heads(model, objective)
        self.objective = objective
        self._metric_sums: dict[str, Tensor] = {}
        self._metric_weight: Tensor | float = 0.0
        terms = _readable(model, objective, terms)
        rows = [build_row(part) for part in plan_rows(terms, tokens_per_row, seed=args.seed)]
        check_fit(model, rows)
        needs_reference = "reference" in objective.needs
        if needs_reference or "behaviour" in objective.needs:
            disable_dropout(model)
        super().__init__(model=model, args=args, data_collator=_collate, train_dataset=rows, callbacks=callbacks)
        check_training(self.model)
        self.remove_callback(PrinterCallback)  # the history has every entry; whoever calls decides what is shown
        if needs_reference and reference != "tree":
            rows = self._with_reference(rows, reference)
        check_recorded(rows, terms, objective, reference)
        self._rows = len(rows)
        self.train_dataset = evened(rows, self.accelerator.num_processes)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The base class's, whose order rows of no weight do not change."""
        if self.accelerator.num_processes == 1:
            return super()._get_train_sampler(train_dataset)
        return EvenSampler(self._rows, len(self.train_dataset), lambda: int(self.state.epoch or 0))

    def train(self, *args: Any, **options: Any) -> Any:
        """Train, as in the base class; afterwards the model computes as it did before.

        Raises:
            GradatimError: if a loss is not a finite number; weights are then those of the update before.
        """
        with blockwise_attention(self.model), mixed_precision_removed(self.model):
            return super().train(*args, **options)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """One forward pass over a row, and the objective; ``num_items_in_batch`` is the update's normalizer."""
        row = TrainingRow(**inputs)
        sizes = row.sizes(self.objective.unit)
        own = sizes.sum()
        normalizer = own if num_items_in_batch is None else num_items_in_batch
        # The gradients of all processes are summed up, so all of them find out where the loss of one is not finite.
        loss, found = weighted_loss(model, row, self.objective, normalizer, refuse=False)
        if model.training:
            self._metric_weight = self._metric_weight + own
            for name, value in found.metrics.items():
                self._metric_sums[name] = self._metric_sums.get(name, 0.0) + (value * sizes).sum()
            if num_items_in_batch is not None:
                loss = loss * self.accelerator.num_processes  # gradients are averaged over processes, not summed
        return (loss, found.metrics) if return_outputs else loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """As in the base class; it is the last that is done before the weights are changed."""
        norm = super()._clip_grad_norm(model)
        if norm is not None and not math.isfinite(norm):
            saved = checkpoints(Path(self.args.output_dir))
            kept = f"; the checkpoint {str(saved[-1])!r} is from before" if saved else ""
            raise GradatimError(
                f"the loss of update {self.state.global_step + 1:,} or its gradient is not a finite number, and would "
                f"destroy the model, so training stops; lower the learning rate, or compute in float32{kept}"
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the objective's metrics since the last entry, of all processes, beside the loss."""
        if self._metric_sums and "loss" in logs:
            # Sums stay on the device until here: reading them at every update would make the device wait.
            sums, weight = self._metrics_of_all()
            logs = {**logs, **{name: float(value / weight) for name, value in sums.items()}}
            self._metric_sums, self._metric_weight = {}, 0.0
        super().log(logs, start_time)

    def report(self, values: dict[str, float]) -> None:
        """Log ``values`` between two entries, neither of which they take the place of."""
        due = self.control.should_log
        self.log(values)
        self.control.should_log = due

    def _metrics_of_all(self) -> tuple[dict[str, Tensor], Tensor]:
        """The sums of the metrics and of the weights over all processes."""
        weight = torch.as_tensor(self._metric_weight, device=self.args.device)
        totals = self.accelerator.reduce({**self._metric_sums, "": weight.clone()})
        weight = totals.pop("")
        return totals, weight

    def _sums(self) -> dict[str, Any]:
        processes = self.accelerator.num_processes  # each goes on with its part of what all of them summed up
        totals, weight = self._metrics_of_all()
        metrics = {name: float(value) / processes for name, value in totals.items()}
        return {**super()._sums(), "metrics": metrics, "weight": float(weight) / processes}

    def _take_sums(self, sums: Mapping[str, Any]) -> None:
        super()._take_sums(sums)
        self._metric_sums = {name: self._tr_loss.new_tensor(value) for name, value in sums["metrics"].items()}
        self._metric_weight = self._tr_loss.new_tensor(sums["weight"])

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor | None:
        """The normalizer of one update, over all its rows and all processes."""
        if not batch_samples:
            return None
        sizes = [TrainingRow(**row).sizes(self.objective.unit).sum() for row in batch_samples]
        total = torch.stack(sizes).sum().to(device)
        return self.accelerator.gather(total).sum() if self.accelerator.num_processes > 1 else total

    def _with_reference(self, rows: list[TrainingRow], reference: Reference) -> list[TrainingRow]:
        with reference_model(self.model, reference, self.args.device) as model, self.accelerator.autocast():
            confidence = "confidence" in self.objective.needs
            return with_reference(model, rows, self.args.device, confidence=confidence)


def _collate(rows: list[TrainingRow]) -> dict[str, Tensor]:
    return rows[0].tensors()


def _readable(model: Any, objective: Objective, given: Sequence[Term]) -> list[Term]:
    """The terms as the loss reads them, without those that are too long for the model, of which a warning tells."""
    terms, too_long = prepared_terms(model, objective, given)
    if too_long:
        warnings.warn(left_out(model, too_long, len(given)), stacklevel=3)
    if not terms:
        raise GradatimError(
            f"every solution is longer than {longest_path(model.config):,} tokens, which the model reads at most; "
            "use shorter prompts or a model with a longer context"
        )
    return terms
