"""A model that learns a little at a time: many rounds of few updates, with one optimizer and one schedule."""

from __future__ import annotations

import copy
import math
import random
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from transformers import Trainer, TrainingArguments, get_scheduler

from gradatim.engine.lending import cast_parameters
from gradatim.errors import GradatimError
from gradatim.objectives.base import Objective
from gradatim.supervision.terms import Term
from gradatim.training.arguments import training_arguments
from gradatim.training.forward import weighted_loss
from gradatim.training.precision import activation_checkpoints
from gradatim.training.preparation import (
    check_fit,
    check_heads,
    check_recorded,
    disable_dropout,
    prepared_model,
    prepared_terms,
)
from gradatim.training.reference import reference_model, with_reference
from gradatim.training.rows import TrainingRow, build_row, plan_rows
from gradatim.training.self_check import blockwise_attention
from gradatim.training.settings import TrainingOptions, TrainingSettings


@dataclass(frozen=True)
class Learned:
    """What one round did to a model.

    Attributes:
        updates: optimizer updates that were made; none where all terms are too long for the model.
        left_out: terms that are.
        loss: their mean loss, each before its update.
        gradient_norm: their mean gradient norm, before it is cut.
        learning_rate: of the last one.
        metrics: the objective's, as means over all terms of the round.
    """

    updates: int
    left_out: int
    loss: float
    gradient_norm: float
    learning_rate: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class LearnerState:
    """All that a learner needs to go on, on the CPU: its trained weights in float32 by name, and its optimizer's state,
    or ``None`` where only the weights are kept."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any] | None

    def write(self, folder: Path, name: str) -> None:
        """Write it into ``folder``, as files whose names begin with ``name``."""
        save_file(self.weights, folder / f"{name}.safetensors")
        if self.optimizer is not None:
            torch.save(self.optimizer, folder / f"{name}.optimizer.pt")

    @classmethod
    def read(cls, folder: Path, name: str) -> LearnerState:
        """What :meth:`write` wrote there."""
        optimizer = folder / f"{name}.optimizer.pt"
        return cls(
            load_file(folder / f"{name}.safetensors"),
            torch.load(optimizer, map_location="cpu", weights_only=True) if optimizer.is_file() else None,
        )


class Learner:
    """Trains a model in place, round by round, between which others run it.

    An update is that of :class:`~gradatim.training.trainer.TreeTrainer`: packed rows, the objective, one normalizer for
    all terms of the update. What a trainer sets up for one training lasts here for all rounds: the optimizer, and the
    schedule of the learning rate, which spans them all. Each round has its place in the schedule, whether it has
    something to learn from or not, and random numbers of its own; so a learner that was put in the state it had after
    round ``n`` goes on as if it had never stopped.

    Trained weights are kept in float32. Where the model runs in lower precision, it has rounded copies of them outside
    of training, so that updates below its precision add up.

    Args:
        model: in float32 and as it was loaded; it gets the objective's heads and, where some are asked for, adapters,
            which stay on it for all rounds.
        objective: the loss.
        options: how it is trained; ``epochs`` are passes over each round's terms.
        rounds: how many there will be.
        updates: into how many updates a pass is divided, tree by tree; fewer where there are fewer trees.
        reference: where reference log-probabilities come from: recorded in the trees; of the model as it is now, of
            which a frozen copy is kept in memory unless it has adapters; or of the model without its adapters.
        dtype: the type of the weights outside of training.
        seed: of the order of trees and of all that is drawn.

    Raises:
        GradatimError: see :func:`~gradatim.training.preparation.prepared_model`.
    """

    def __init__(
        self,
        model: Any,
        objective: Objective,
        options: TrainingOptions,
        *,
        rounds: int,
        updates: int = 1,
        reference: Literal["tree", "initial", "base"] = "tree",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        self.objective = objective
        self.options = options
        self._updates = updates
        self._epochs = int(options.epochs)
        self._dtype = dtype
        self._seed = seed
        self._reference: Literal["tree", "base"] | nn.Module = "tree" if reference == "tree" else "base"
        if reference == "initial" and options.lora is None and "reference" in objective.needs:
            frozen = copy.deepcopy(model).requires_grad_(False)
            cast_parameters(frozen, dtype)
            self._reference = frozen
        self.model, _ = prepared_model(model, objective, options.lora)
        check_heads(self.model, objective)
        if objective.needs & {"reference", "behaviour"}:
            disable_dropout(self.model)
        self._own = {name: each for name, each in self.model.named_parameters() if each.requires_grad}
        self._masters = {name: each.data for name, each in self._own.items()}
        arguments = _arguments(options)
        self.optimizer = _optimizer(self.model, self._own, arguments)
        self._planned = rounds * self._epochs * updates
        self._factor = _schedule(arguments, self._planned)
        self._to_run()

    @property
    def device(self) -> torch.device:
        """Where the model begins."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def learn(self, terms: Sequence[Term], number: int) -> Learned:
        """Make the updates of a round.

        Args:
            terms: what there is to learn from; at least one.
            number: of the round, from 1.

        Raises:
            GradatimError: if the objective cannot learn from a term or the model cannot read it, or a loss or its
                gradient is not a finite number.
        """
        seed = zlib.crc32(f"{self._seed} {number}".encode())
        torch.manual_seed(seed)
        order = random.Random(seed)
        readable, too_long = prepared_terms(self.model, self.objective, terms)
        made: list[_Update] = []
        if readable:
            with self._training():
                parts = self._parts(readable, order)
                place = (number - 1) * self._epochs * self._updates
                made = [
                    self._update(parts[part], place + pass_ * self._updates + turn)
                    for pass_ in range(self._epochs)
                    for turn, part in enumerate(order.sample(range(len(parts)), len(parts)))
                ]
        sums: dict[str, float] = {}
        for update in made:
            for name, value in update.metrics.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        size = max(sum(float(update.size) for update in made), 1e-12)
        return Learned(
            updates=len(made),
            left_out=too_long,
            loss=_mean([float(update.loss) for update in made]),
            gradient_norm=_mean([update.norm for update in made]),
            learning_rate=made[-1].rate if made else 0.0,
            metrics={name: value / size for name, value in sums.items()},
        )

    def state(self, *, optimizer: bool = True) -> LearnerState:
        """A copy of what the learner needs to go on, or of its weights alone."""
        weights = {name: each.detach().to("cpu", copy=True).contiguous() for name, each in self._masters.items()}
        kept = tree_map_only(Tensor, _on_cpu, self.optimizer.state_dict()) if optimizer else None
        return LearnerState(weights, kept)

    def restore(self, state: LearnerState) -> None:
        """Go back to a state; the optimizer stays as it is where the state has none. Whoever runs the model has to
        forget what it cached."""
        self._to_train()
        with torch.no_grad():
            for name, parameter in self._own.items():
                parameter.copy_(state.weights[name])
        if state.optimizer is not None:  # while the weights are in float32: it takes on their type
            self.optimizer.load_state_dict(copy.deepcopy(state.optimizer))
        self._to_run()

    def finished(self) -> Any:
        """The trained model in float32, its adapters merged into its weights; it learns no more."""
        self._to_train()
        self.optimizer.zero_grad(set_to_none=True)
        return self.model.merge_and_unload() if hasattr(self.model, "merge_and_unload") else self.model

    @contextmanager
    def _training(self) -> Iterator[None]:
        self.model.requires_grad_(False)
        for parameter in self._own.values():
            parameter.requires_grad_(True)
        self._to_train()
        self.model.train()
        try:
            with (
                blockwise_attention(self.model),
                activation_checkpoints(self.model, self.options.gradient_checkpointing),
            ):
                yield
        finally:
            self.model.eval()
            self.optimizer.zero_grad(set_to_none=True)
            self._to_run()

    def _to_train(self) -> None:
        """Give the model its weights in float32."""
        for name, parameter in self._own.items():
            parameter.data = self._masters[name]
        for parameter in self.model.parameters():
            if parameter.is_floating_point():  # what does not learn is the same in float32
                parameter.data = parameter.data.float()

    def _to_run(self) -> None:
        """Give the model its weights as it runs."""
        self._masters = {name: each.data for name, each in self._own.items()}
        for parameter in self.model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(self._dtype)

    def _parts(self, terms: Sequence[Term], order: random.Random) -> list[list[TrainingRow]]:
        """The rows of each update of a pass. Every update has as many trees, or one less."""
        by_tree: dict[int, list[Term]] = {}
        for term in terms:
            by_tree.setdefault(id(term.groups[0].nodes[0].tree), []).append(term)
        trees = list(by_tree.values())
        order.shuffle(trees)
        count = min(self._updates, len(trees))
        limit = self.options.tokens_per_batch
        planned = [
            plan_rows([term for tree in trees[part::count] for term in tree], limit, seed=None) for part in range(count)
        ]
        parts = [[build_row(row) for row in part] for part in planned]
        rows = [row for part in parts for row in part]
        check_fit(self.model, rows)
        check_recorded(rows, terms, self.objective, "tree" if self._reference == "tree" else "initial")
        return [self._with_reference(part) for part in parts]

    def _with_reference(self, rows: list[TrainingRow]) -> list[TrainingRow]:
        if "reference" not in self.objective.needs or self._reference == "tree":
            return rows
        with reference_model(self.model, self._reference, self.device) as model, self._autocast():
            return with_reference(model, rows, self.device)

    def _update(self, rows: Sequence[TrainingRow], place: int) -> _Update:
        """One update on all of ``rows``, at a place of the schedule."""
        rows = [row.to(self.device) for row in rows]
        sizes = [row.sizes(self.objective.unit) for row in rows]
        size = torch.stack([each.sum() for each in sizes]).sum()
        total, metrics = size.new_zeros(()), dict[str, Tensor]()
        for row, own in zip(rows, sizes, strict=True):
            with self._autocast():
                loss, found = weighted_loss(self.model, row, self.objective, size)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            for name, value in found.metrics.items():
                metrics[name] = metrics.get(name, 0.0) + (value * own).sum()
        norm = float(nn.utils.clip_grad_norm_(self._own.values(), self.options.max_grad_norm))
        if not math.isfinite(norm):
            raise GradatimError(
                "the gradient is not a finite number, so training would destroy the model; lower the learning rate, or "
                "compute in float32"
            )
        rate = self.options.learning_rate * self._factor(place)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return _Update(total, norm, size, metrics, rate)

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.options.bf16)


@dataclass(frozen=True)
class _Update:
    """One update: its loss, gradient norm and size, sums of metrics by the terms' sizes, and its learning rate."""

    loss: Tensor
    norm: float
    size: Tensor
    metrics: dict[str, Tensor]
    rate: float


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def _arguments(options: TrainingOptions) -> TrainingArguments:
    given = {field.name: getattr(options, field.name) for field in fields(TrainingOptions)}
    with tempfile.TemporaryDirectory() as nowhere:
        return training_arguments(TrainingSettings(**{**given, "save_every": None}), Path(nowhere))


def _optimizer(model: Any, own: dict[str, nn.Parameter], arguments: TrainingArguments) -> torch.optim.Optimizer:
    """The optimizer that a trainer would make; biases and norms, which are vectors, are not drawn to zero."""
    made, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    groups = [
        {"params": [each for each in own.values() if each.ndim > 1], "weight_decay": arguments.weight_decay},
        {"params": [each for each in own.values() if each.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer = made(groups, **options)
    return optimizer


def _schedule(arguments: TrainingArguments, updates: int) -> Any:
    """The share of the peak learning rate at each update, a function of how many were planned before it."""
    nothing = torch.optim.SGD([torch.zeros(1)], lr=arguments.learning_rate)
    warm_up, given = arguments.get_warmup_steps(updates), arguments.lr_scheduler_kwargs
    return get_scheduler(arguments.lr_scheduler_type, nothing, warm_up, updates, given).lr_lambdas[0]
