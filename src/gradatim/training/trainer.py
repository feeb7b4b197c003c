"""The trainer: packed rows through a model, an objective over what comes out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from gradatim.engine.heads import heads_of
from gradatim.engine.path_length import longest_path
from gradatim.engine.query_scale import longest_row
from gradatim.errors import GradatimError
from gradatim.objectives.base import Objective
from gradatim.supervision.terms import Term
from gradatim.training.checkpoints import CheckpointTrainer
from gradatim.training.even_rows import EvenSampler, evened
from gradatim.training.forward import is_token_classifier, measured, token_log_probabilities
from gradatim.training.precision import mixed_precision_removed
from gradatim.training.rows import TrainingRow, build_row, plan_rows
from gradatim.training.self_check import blockwise_attention, check_training

Reference = Literal["tree", "initial", "base"] | nn.Module


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
        _check_heads(model, objective)
        self.objective = objective
        self._metric_sums: dict[str, Tensor] = {}
        self._metric_weight: Tensor | float = 0.0
        terms = _readable(model, [objective.prepared(term) for term in terms])
        if not terms:
            raise GradatimError(
                f"every solution is longer than {longest_path(model.config):,} tokens, which the model reads at most; "
                "use shorter prompts or a model with a longer context"
            )
        rows = [build_row(part) for part in plan_rows(terms, tokens_per_row, seed=args.seed)]
        _check_fit(model, rows)
        needs_reference = "reference" in objective.needs
        if needs_reference:
            disable_dropout(model)
        super().__init__(model=model, args=args, data_collator=_collate, train_dataset=rows, callbacks=callbacks)
        check_training(self.model)
        self.remove_callback(PrinterCallback)  # the history has every entry; whoever calls decides what is shown
        if needs_reference:
            if reference == "tree":
                _check_one_source(terms)
            rows = self._with_reference(rows, reference)
        if "behaviour" in objective.needs and any(bool(row.behaviour.isnan().any()) for row in rows):
            raise GradatimError(
                "some steps have no recorded log-probabilities, so nobody knows how likely they were when they were "
                "sampled; sample the trees with a policy that records them"
            )
        self._rows = len(rows)
        self.train_dataset = evened(rows, self.accelerator.num_processes)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The base class's, whose order rows of no weight do not change."""
        if self.accelerator.num_processes == 1:
            return super()._get_train_sampler(train_dataset)
        return EvenSampler(self._rows, len(self.train_dataset))

    def train(self, *args: Any, **options: Any) -> Any:
        """Train, as in the base class; afterwards the model computes as it did before."""
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
        found = self.objective.loss(measured(model, row, self.objective))
        normalizer = own if num_items_in_batch is None else num_items_in_batch
        loss = (row.weight * found.per_term).sum() / normalizer.clamp(min=1e-12)
        if not bool(loss.isfinite()):
            raise GradatimError(
                "the loss is not a finite number, so training would destroy the model; lower the learning rate, or "
                "compute in float32"
            )
        if model.training:
            self._metric_weight = self._metric_weight + own
            for name, value in found.metrics.items():
                self._metric_sums[name] = self._metric_sums.get(name, 0.0) + (value * sizes).sum()
            if num_items_in_batch is not None:
                loss = loss * self.accelerator.num_processes  # gradients are averaged over processes, not summed
        return (loss, found.metrics) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the objective's metrics since the last entry, of all processes, beside the loss."""
        if self._metric_sums and "loss" in logs:
            # Sums stay on the device until here: reading them at every update would make the device wait.
            sums, weight = self._metrics_of_all()
            logs = {**logs, **{name: float(value / weight) for name, value in sums.items()}}
            self._metric_sums, self._metric_weight = {}, 0.0
        super().log(logs, start_time)

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
        if reference == "tree":
            if any(bool(row.reference.isnan().any()) for row in rows):
                raise GradatimError(
                    "some steps have no recorded log-probabilities, so the tree cannot be the reference; sample the "
                    "trees with a policy that records them, or take the reference from a model"
                )
            return rows
        result = []
        with (
            reference_model(self.model, reference, self.args.device) as model,
            torch.no_grad(),
            blockwise_attention(model),
        ):
            for row in rows:
                moved = TrainingRow(**self._prepare_inputs(row.tensors()))
                with self.accelerator.autocast():
                    values = token_log_probabilities(model, moved)
                result.append(replace(row, reference=values.float().cpu()))
        return result


def _check_heads(model: Any, objective: Objective) -> None:
    """Refuse a model that lacks what the objective reads."""
    if is_token_classifier(model):
        missing = set(objective.heads) - {"score"} or objective.needs
        if missing:
            raise GradatimError(
                "a token classification model judges tokens and gives no log-probabilities or values; train a causal "
                "language model by this objective"
            )
    elif lacking := [name for name in objective.heads if name not in heads_of(model)]:
        raise GradatimError(
            f"the model lacks the head {lacking[0]!r}, which the objective reads; attach it "
            "(gradatim.engine.heads.attach_heads) or load a model that has it"
        )


def _check_one_source(terms: Sequence[Term]) -> None:
    """Refuse recorded log-probabilities of several policies as one reference."""
    nodes = (node for term in terms for group in term.groups for node in group.nodes)
    sources = sorted({node.step.source for node in nodes})
    if len(sources) > 1:
        names = ", ".join(source or "an unknown one" for source in sources)
        raise GradatimError(
            f"the steps were written by {len(sources)} policies ({names}), so their recorded log-probabilities are not "
            "those of one reference; learn from one policy's steps, or take the reference from a model",
            options=("reference",),
        )


@contextmanager
def reference_model(model: nn.Module, reference: Reference, device: torch.device) -> Iterator[nn.Module]:
    """The model that gives reference log-probabilities, in evaluation mode; the trained model is left as it was.

    Raises:
        GradatimError: if ``"base"`` is asked of a model without adapters, or the name is not known.
    """
    target: Any = model if isinstance(reference, str) else reference
    training = target.training
    target.to(device).eval()
    try:
        if reference == "base":
            if not hasattr(target, "disable_adapter"):
                raise GradatimError("the reference 'base' needs a model with adapters; use 'initial' or 'tree' instead")
            with target.disable_adapter():
                yield target
        elif reference == "initial" or isinstance(reference, nn.Module):
            yield target
        else:
            raise GradatimError(f"the reference {reference!r} is not known; use 'tree', 'initial', 'base' or a model")
    finally:
        target.train(training)


def disable_dropout(model: nn.Module) -> None:
    """Switch off the model's own dropout, which would be noise between policy and reference; adapters keep theirs."""
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Many models keep the probability as a number, each under a name of its own, and OPT skips whole layers by one.
        for attribute, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in attribute or attribute == "layerdrop"):
                setattr(module, attribute, 0.0)


def _collate(rows: list[TrainingRow]) -> dict[str, Tensor]:
    return rows[0].tensors()


def _readable(model: Any, terms: Sequence[Term]) -> list[Term]:
    """The terms whose paths are no longer than the model reads; a warning tells how many are left out."""
    limit = longest_path(model.config)
    kept = [term for term in terms if all(len(node.tokens_before_observation) <= limit for node in term.ends)]
    if left_out := len(terms) - len(kept):
        warnings.warn(
            f"{left_out:,} of {len(terms):,} training examples are left out, since their solutions are longer than "
            f"the {limit:,} tokens that the model reads at most",
            stacklevel=3,
        )
    return kept


def _check_fit(model: Any, rows: list[TrainingRow]) -> None:
    config = model.config.get_text_config()
    largest = max(int(row.input_ids.max()) for row in rows)
    if largest >= config.vocab_size:
        raise GradatimError(
            f"the trees contain token id {largest} but the model knows only {config.vocab_size} tokens; train the "
            "model that the trees were grown with, or one with the same tokenizer"
        )
    most = longest_row(config)
    if most is not None and max(row.input_ids.shape[0] for row in rows) > most:
        raise GradatimError(
            f"a packed row is longer than {most} tokens, from where on {config.model_type!r} models scale their "
            "attention by the place in the row; make tokens_per_row (tokens_per_batch) smaller and leave longer paths "
            "out"
        )
