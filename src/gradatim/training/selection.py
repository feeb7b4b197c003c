"""Early stopping on a held-out measure, and keeping the best state."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

Evaluate = Callable[[Any], float]


class BestState(TrainerCallback):
    """Calls an evaluation function as training goes on, and keeps the weights that did best.

    The model before the first update is evaluated too, so training never returns something worse than it was given.
    Only weights that are trained are kept. With a folder, the best state is also written there, so that a resumed
    training still knows it.

    Args:
        evaluate: given the model in evaluation mode, returns a number; higher is better.
        every: updates between two calls.
        patience: stop after so many calls without a better value; ``None`` never stops.
        folder: where the best state is kept on disk.
        resume: take up the best state found there.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        *,
        every: int,
        patience: int | None = None,
        folder: Path | None = None,
        resume: bool = False,
    ) -> None:
        self.evaluate = evaluate
        self.every = every
        self.patience = patience
        self.folder = folder
        self.values: dict[int, float] = {}  # update -> value
        self.best_step = -1
        self.weights: dict[str, Tensor] = {}
        if resume:
            self._load()

    @property
    def best_value(self) -> float:
        return self.values[self.best_step]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Whatever was measured after the checkpoint that training resumes from will be measured again.
        self.values = {step: self.values[step] for step in self.values if step <= state.global_step}
        if self.best_step not in self.values:
            self.best_step = -1
        self._measure(kwargs["model"], state, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every == 0:
            self._measure(kwargs["model"], state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._measure(kwargs["model"], state, control)
        parameters = dict(kwargs["model"].named_parameters())
        with torch.no_grad():
            for name, value in self.weights.items():
                parameters[name].copy_(value)

    def _measure(self, model: nn.Module, state: TrainerState, control: TrainerControl) -> None:
        step = state.global_step
        if step in self.values:
            return
        training = model.training
        model.eval()
        with torch.no_grad():
            self.values[step] = float(self.evaluate(model))
        model.train(training)
        if self.best_step < 0 or self.values[step] > self.best_value:
            self.best_step = step
            self.weights = {
                name: parameter.detach().to("cpu", copy=True)
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            }
            self._save()
        since = sum(1 for later in self.values if later > self.best_step)
        if self.patience is not None and since >= self.patience:
            control.should_training_stop = True

    def _save(self) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        metadata = {"step": str(self.best_step), "values": json.dumps(self.values)}
        partial = self.folder / "best.safetensors.partial"
        save_file(self.weights, partial, metadata)
        os.replace(partial, self.folder / "best.safetensors")

    def _load(self) -> None:
        path = None if self.folder is None else self.folder / "best.safetensors"
        if path is None or not path.exists():
            return
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        self.best_step = int(header["__metadata__"]["step"])
        self.values = {int(step): value for step, value in json.loads(header["__metadata__"]["values"]).items()}
        self.weights = load_file(path)
