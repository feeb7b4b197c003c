"""Training in one call: what runs and scripts use."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gradatim.objectives.base import Objective
from gradatim.supervision.terms import Term
from gradatim.training.checkpoints import last_checkpoint, remove_checkpoints
from gradatim.training.preparation import prepared_model
from gradatim.training.reference import Reference
from gradatim.training.selection import BestState, Evaluate
from gradatim.training.settings import TrainingSettings, training_arguments
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


class _ReportUpdates(TrainerCallback):
    """Tells how many updates were made, and of how many."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self._report = report

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._report(state.global_step, state.max_steps)


def train(
    model: Any,
    objective: Objective,
    terms: Sequence[Term],
    settings: TrainingSettings,
    *,
    reference: Reference = "tree",
    evaluate: Evaluate | None = None,
    on_update: Callable[[int, int], None] | None = None,
) -> TrainingResult:
    """Train ``model`` in place.

    The model of a policy, scorer or reader is trained within :func:`gradatim.engine.lending.trainable`: while one runs
    it, its attention is replaced, and what is cached of it would no longer be its own.

    Args:
        model: a causal language model, which gets the heads that the objective reads, or a token classification model
            for objectives that read its score.
        objective: the loss.
        terms: what to learn from, as constructions give it.
        settings: how.
        reference: where reference log-probabilities come from; see :class:`~gradatim.training.trainer.TreeTrainer`.
        evaluate: a held-out measure of the model, higher is better; the best state is what remains.
        on_update: called after each update with the updates made and those planned.

    Raises:
        GradatimError: if a policy or scorer runs the model, or it lacks the modules that adapters are asked for; also
            see :class:`~gradatim.training.trainer.TreeTrainer`.
    """
    model, held = prepared_model(model, objective, settings.lora)
    selection = None
    callbacks: list[TrainerCallback] = [] if on_update is None else [_ReportUpdates(on_update)]
    if evaluate is not None:
        selection = BestState(
            evaluate,
            every=settings.evaluate_every,
            patience=settings.patience,
            folder=settings.output_dir,
            resume=settings.resume,
        )
        callbacks.append(selection)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if settings.output_dir is None else settings.output_dir
        trainer = TreeTrainer(
            model,
            training_arguments(settings, folder),
            objective=objective,
            terms=terms,
            tokens_per_row=settings.tokens_per_batch,
            reference=reference,
            callbacks=callbacks,
        )
        checkpoint = _checkpoint(settings, selection, remove=trainer.args.should_save)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    model.eval()
    for parameter in held:
        parameter.requires_grad_(True)
    updates = trainer.state.global_step
    return TrainingResult(
        model=model,
        updates=updates,
        history=[entry for entry in trainer.state.log_history if "loss" in entry],
        evaluations={} if selection is None else dict(sorted(selection.values.items())),
        best_update=updates if selection is None else selection.best_step,
    )


def _checkpoint(settings: TrainingSettings, selection: BestState | None, *, remove: bool) -> Path | None:
    """The checkpoint to go on from. Those of an earlier training that this one does not go on with are deleted."""
    folder = settings.output_dir
    if folder is not None and settings.resume:
        return last_checkpoint(folder, remove=remove, **({} if selection is None else {"fault": selection.fault}))
    if folder is not None and settings.save_every is not None and remove:
        remove_checkpoints(folder)
    return None
