"""Training inside a command: with checkpoints to go on from, and with what a person sees of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gradatim.objectives import Objective
from gradatim.run.progress import StageProgress, in_words
from gradatim.run.together import ask_for_help
from gradatim.supervision.terms import Term
from gradatim.training import TrainingResult, TrainingSettings, train
from gradatim.training.reference import Reference
from gradatim.training.saving import disk_errors
from gradatim.training.settings import TrainingOptions


def training_settings(options: TrainingOptions, checkpoints: Path, seed: int, name: str) -> TrainingSettings:
    """A recipe's training options as settings that go on from the last checkpoint in ``checkpoints``.

    Args:
        options: the recipe's.
        checkpoints: the folder of the training.
        seed: of what is drawn.
        name: what the training is called where it is reported to.
    """
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    return TrainingSettings(**given, output_dir=checkpoints, resume=True, seed=seed % 2**31, name=name)


def fit(
    model: Any,
    objective: Objective,
    terms: Sequence[Term],
    settings: TrainingSettings,
    *,
    stage: StageProgress,
    evaluate: Callable[[Any], float] | None,
    measure: tuple[str, float],
    reference: Reference = "tree",
) -> TrainingResult:
    """Train, with the course of it shown in ``stage`` and a full disk told as such.

    Args:
        measure: what people call what ``evaluate`` gives, and the sign that they are shown it with.

    Raises:
        GradatimError: as :func:`gradatim.training.train`; also if a checkpoint cannot be written.
    """
    assert settings.output_dir is not None, "a command keeps checkpoints"
    shown = _Shown(stage, *measure)
    ask_for_help(model, objective, terms, settings, reference=reference, measured=evaluate is not None)
    with disk_errors(settings.output_dir):
        return train(
            model,
            objective,
            terms,
            settings,
            evaluate=None if evaluate is None else shown.measuring(evaluate),
            measure=measure,
            reference=reference,
            on_update=shown.update,
            on_entry=shown.entry,
        )


class _Shown:
    """What a person sees of a training: how far it is, the last loss, the last held-out value, and how long is left."""

    def __init__(self, stage: StageProgress, what: str, sign: float) -> None:
        self._stage = stage
        self._what = what
        self._sign = sign
        self._first: tuple[int, float] | None = None  # the first update of this process, and its time
        self._place, self._left = "", ""
        self._loss, self._value = "", ""

    def update(self, made: int, planned: int) -> None:
        """Another update is made."""
        now = time.perf_counter()
        first, started = self._first = self._first or (made, now)  # a training that goes on made others before
        self._place = f"update {made:,} of {planned:,}"
        if made > first:
            self._left = f"about {in_words((now - started) / (made - first) * (planned - made))} left"
        self._show()

    def entry(self, entry: Mapping[str, float]) -> None:
        """The history has another entry."""
        if "loss" in entry:
            self._loss = f"loss {entry['loss']:.4f}"
            self._show()

    def measuring(self, evaluate: Callable[[Any], float]) -> Callable[[Any], float]:
        """``evaluate``, with every result shown."""

        def measure(model: Any) -> float:
            self._stage.note("measuring")
            value = evaluate(model)
            self._value = f"{self._what} {self._sign * value:.4f}"
            self._show()
            return value

        return measure

    def _show(self) -> None:
        self._stage.note(", ".join(filter(None, (self._place, self._loss, self._value, self._left))))


def outcome(result: TrainingResult, what: str, sign: float) -> str:
    """What training did to the held-out measure ``what``, in a few words."""
    if not result.evaluations:
        return f"{result.updates} updates"
    first, best = result.evaluations[min(result.evaluations)], result.evaluations[result.best_update]
    if result.best_update == 0:
        return f"{result.updates} updates, {what} {sign * first:.4f} before and never better: what was before is kept"
    return (
        f"{result.updates} updates, {what} {sign * first:.4f} before and {sign * best:.4f} "
        f"after {result.best_update} updates"
    )


def curve(result: TrainingResult) -> dict[str, Any]:
    """A training's course as JSON values."""
    return {
        "updates": result.updates,
        "best_update": result.best_update,
        "evaluations": {str(update): value for update, value in sorted(result.evaluations.items())},
        "history": result.history,
    }
