"""Early stopping on a held-out measure, and keeping the best state."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from gradatim.processes import is_first
from gradatim.store.files import atomic_path
from gradatim.training.collective import of_first
from gradatim.training.precision import plain_forward
from gradatim.training.sharding import readable, whole, write

Evaluate = Callable[[Any], float]

_FILE = "best.safetensors"


class BestState(TrainerCallback, ExportableState):
    """Calls an evaluation function as training goes on, and keeps the weights that did best.

    The model before the first update is evaluated too, so training never returns something worse than it was given.
    Only weights that are trained are kept. With a folder, the best state is also written there, and every checkpoint
    says what had been measured by then, so that a resumed training stops and chooses as an unbroken one does.

    Where several processes train, the first one measures, and the others learn of it.

    Args:
        evaluate: given the model in evaluation mode, returns a number; higher is better.
        every: updates between two calls.
        patience: stop after so many calls without a better value; ``None`` never stops.
        folder: where the best state is kept on disk.
        resume: take up the best state found there; without, it is deleted.
        blank: a copy without weights of a model that is divided among processes; see
            :func:`gradatim.training.sharding.readable`.
        report: called with each value that is measured.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        *,
        every: int,
        patience: int | None = None,
        folder: Path | None = None,
        resume: bool = False,
        blank: nn.Module | None = None,
        report: Callable[[float], None] = lambda value: None,
    ) -> None:
        self.evaluate = evaluate
        self.every = every
        self.patience = patience
        self.blank = blank
        self.report = report
        self.file = None if folder is None else folder / _FILE
        self.values: dict[int, float] = {}  # update -> value
        self.best_step = -1
        self.best_value = -math.inf
        self.weights: dict[str, Tensor] = {}
        self._values_of_file: dict[int, float] = {}  # for checkpoints of versions that kept none
        if self.file is not None and resume:
            self._load(self.file)
        elif self.file is not None and is_first():
            self.file.unlink(missing_ok=True)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the values measured so far, by update."""
        return {"args": {}, "attributes": {"values": dict(self.values)}}

    def fault(self, state: TrainerState) -> str | None:
        """Why training cannot go on from a checkpoint of this state: the best state so far is lost. Else ``None``."""
        values = self._values_at(state)
        if not values:
            return None
        best = max(values, key=lambda step: values[step])  # of equal ones the first, as they are measured in order
        if self.best_step == best or (self.best_step > state.global_step and self.best_value > values[best]):
            return None
        return f"{_FILE} does not hold the best state so far, of update {best}"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Whatever was measured after the checkpoint that training resumes from will be measured again. The best state
        # is kept even so: it was reached, and an equal value does not take its place.
        self.values = self._values_at(state)
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())  # an older checkpoint had no such entry
        if not self.values or state.global_step % self.every == 0:
            self._measure(kwargs["model"], state, args.device)
        self._stop_early(control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every == 0:
            self._measure(kwargs["model"], state, args.device)
            self._stop_early(control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._measure(kwargs["model"], state, args.device)
        self.values[self.best_step] = self.best_value
        parameters = dict(kwargs["model"].named_parameters())
        for name, value in self.weights.items():
            write(parameters[name], value)

    def _values_at(self, state: TrainerState) -> dict[int, float]:
        kept = state.stateful_callbacks.get(type(self).__name__)
        values = self._values_of_file if kept is None else kept["attributes"]["values"]
        return {int(step): value for step, value in values.items() if int(step) <= state.global_step}

    def _measure(self, model: nn.Module, state: TrainerState, device: torch.device) -> None:
        step = state.global_step
        if step in self.values:
            return
        with readable(model, self.blank, device) as whole_model:
            self.values[step] = of_first(self._value(whole_model) if is_first() else math.nan)
        self.report(self.values[step])
        if self.best_step < 0 or self.values[step] > self.best_value:
            self.best_step, self.best_value = step, self.values[step]
            self.weights = {
                name: whole(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad
            }
            self._save()

    def _value(self, model: nn.Module) -> float:
        with _as_given(model):
            return float(self.evaluate(model))

    def _stop_early(self, control: TrainerControl) -> None:
        since = sum(1 for step in self.values if step > self.best_step)
        if self.patience is not None and since >= self.patience:
            control.should_training_stop = True

    def _save(self) -> None:
        if self.file is not None and is_first():
            metadata = {"step": str(self.best_step), "value": repr(self.best_value)}
            with atomic_path(self.file) as temporary:
                save_file(self.weights, temporary, metadata)

    def _load(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
            if "values" in metadata:  # as versions wrote it whose checkpoints kept no values
                self._values_of_file = {int(step): value for step, value in json.loads(metadata["values"]).items()}
            step = int(metadata["step"])
            value = self._values_of_file[step] if self._values_of_file else float(metadata["value"])
            self.weights = load_file(path)
        except FileNotFoundError:
            return
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"the best state {str(path)!r} is passed over: it cannot be read ({error})", stacklevel=2)
            return
        self.best_step, self.best_value = step, value


@contextmanager
def _as_given(model: Any) -> Iterator[None]:
    """The model as whoever evaluates it may expect it: in evaluation mode, and without what training laid around it.

    What evaluation changes is put right afterwards: a policy that ran the model has replaced its attention.
    """
    training, attention = model.training, model.config.get_text_config()._attn_implementation
    model.eval()
    try:
        with torch.no_grad(), plain_forward(model):
            yield
    finally:
        model.train(training)
        if model.config.get_text_config()._attn_implementation != attention:
            model.set_attn_implementation(attention)
