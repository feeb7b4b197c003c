"""Training in one call: what runs and scripts use."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gradatim.engine.heads import heads_of
from gradatim.engine.lending import cast_parameters
from gradatim.objectives.base import Objective
from gradatim.processes import is_first
from gradatim.supervision.terms import Term
from gradatim.training.adapters import check_bits
from gradatim.training.arguments import training_arguments
from gradatim.training.attention import check_attention
from gradatim.training.checkpoints import last_checkpoint, remove_checkpoints
from gradatim.training.collective import of_first, weights_of_first
from gradatim.training.precision import activation_checkpoints
from gradatim.training.preparation import prepared_model
from gradatim.training.reference import Reference
from gradatim.training.reports import held_out_key, reporting
from gradatim.training.selection import BestState, Evaluate
from gradatim.training.settings import TrainingSettings
from gradatim.training.sharding import fill, without_weights
from gradatim.training.trainer import TreeTrainer


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What training did.

    Attributes:
        model: the trained model, in evaluation mode: the one that was given, or adapters around it.
        updates: optimizer updates that were made.
        history: logged entries: loss, learning rate, gradient norm and the objective's metrics, by update.
        evaluations: what the evaluation function returned, by update.
        best_update: the update whose weights the model has now.
    """

    model: Any
    updates: int
    history: list[dict[str, float]]
    evaluations: dict[int, float] = field(default_factory=dict)
    best_update: int = 0


class _Course(TrainerCallback):
    """Tells how many updates were made, and of how many, and each entry of the history."""

    def __init__(self, update: Callable[[int, int], None], entry: Callable[[Mapping[str, float]], None]) -> None:
        self._update = update
        self._entry = entry

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._update(state.global_step, state.max_steps)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._entry(kwargs["logs"])


def train(
    model: Any,
    objective: Objective,
    terms: Sequence[Term],
    settings: TrainingSettings,
    *,
    reference: Reference = "tree",
    evaluate: Evaluate | None = None,
    measure: tuple[str, float] = ("held out", 1.0),
    on_update: Callable[[int, int], None] = lambda made, planned: None,
    on_entry: Callable[[Mapping[str, float]], None] = lambda entry: None,
) -> TrainingResult:
    """Train ``model`` in place; its weights then have the type that the settings name.

    Several processes that were started with the same command train together: each calls this with the same arguments,
    and gets the same result. Of a model that is divided among them (``fsdp``) the result holds a whole copy, and the
    given one stays divided.

    The model of a policy, scorer or reader is trained within :func:`gradatim.engine.lending.trainable`: while one runs
    it, its attention is replaced, and what is cached of it would no longer be its own.

    Args:
        model: a causal language model, which gets the heads that the objective reads, or a token classification model
            for objectives that read its score.
        objective: the loss.
        terms: what to learn from, as constructions give it.
        settings: how.
        reference: where reference log-probabilities come from; see :class:`~gradatim.training.trainer.TreeTrainer`.
        evaluate: a held-out measure of the model, higher is better; the best state is what remains. The first process
            calls it, and the others learn what it found.
        measure: what reports call that, and the sign that they show it with.
        on_update: called after each update with the updates made and those planned.
        on_entry: called with each entry of the history, and with each held-out value.

    Raises:
        GradatimError: if a policy or scorer runs the model, or it lacks the modules that adapters are asked for; also
            see :class:`~gradatim.training.trainer.TreeTrainer`.
    """
    check_attention(model.config)
    check_bits(model, settings.lora)
    cast_parameters(model, getattr(torch, settings.dtype))
    model, held = prepared_model(model, objective, settings.lora)
    for head in heads_of(model).values():
        head.float()  # a policy's heads are small, and learn in float32 whatever the policy does
    still = {id(each) for each in held}
    kept = {name for name, each in model.named_parameters() if id(each) in still}
    blank = without_weights(model) if settings.fsdp else None
    selection = None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if settings.output_dir is None else settings.output_dir
        arguments = training_arguments(settings, folder)
        if settings.fsdp:
            weights_of_first(model)  # each process keeps a part of its own copy, and drew adapters of its own
        if evaluate is not None:
            selection = BestState(
                evaluate,
                every=settings.evaluate_every,
                patience=settings.patience,
                folder=settings.output_dir,
                resume=settings.resume,
                blank=blank,
                report=lambda value: trainer.report({held_out_key(measure[0]): measure[1] * value}),
            )
        own = [_Course(on_update, on_entry), *([] if selection is None else [selection])]
        with reporting(settings.report_to, folder) as reporters:
            trainer = TreeTrainer(
                model,
                arguments,
                objective=objective,
                terms=terms,
                tokens_per_row=settings.tokens_per_batch,
                reference=reference,
                callbacks=[*own, *reporters],  # what is measured in the end is reported before reports end
            )
            checkpoint = _checkpoint(settings, selection)
            with activation_checkpoints(model, settings.gradient_checkpointing):
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if blank is not None:
            fill(blank, model, arguments.device)
            model = blank
    model.eval()
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.requires_grad_(True)
    updates = trainer.state.global_step
    return TrainingResult(
        model=model,
        updates=updates,
        history=[entry for entry in trainer.state.log_history if "loss" in entry],
        evaluations={} if selection is None else dict(sorted(selection.values.items())),
        best_update=updates if selection is None else selection.best_step,
    )


def _checkpoint(settings: TrainingSettings, selection: BestState | None) -> Path | None:
    """The checkpoint to go on from, which the first process chooses. Those of an earlier training that this one does
    not go on with are deleted."""
    folder, found = settings.output_dir, None
    if folder is not None and is_first():
        if settings.resume:
            found = last_checkpoint(folder, **({} if selection is None else {"fault": selection.fault}))
        elif settings.save_every is not None:
            remove_checkpoints(folder)
    return of_first(found)
