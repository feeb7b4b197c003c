"""Training inside a command: with checkpoints to go on from, and with what a person sees of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gradatim.objectives import Objective
from gradatim.run.progress import StageProgress, in_words
from gradatim.supervision.terms import Term
from gradatim.training import TrainingResult, TrainingSettings, train
from gradatim.training.reference import Reference
from gradatim.training.saving import disk_errors
from gradatim.training.settings import TrainingOptions


def training_settings(options: TrainingOptions, checkpoints: Path, seed: int) -> TrainingSettings:
    """A recipe's training options as settings that go on from the last checkpoint in ``checkpoints``."""
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    return TrainingSettings(**given, output_dir=checkpoints, resume=True, seed=seed % 2**31)


def fit(
    model: Any,
    objective: Objective,
    terms: Sequence[Term],
    settings: TrainingSettings,
    *,
    stage: StageProgress,
    evaluate: Callable[[Any], float] | None,
    reference: Reference = "tree",
) -> TrainingResult:
    """Train, with every update shown in ``stage`` and a full disk told as such.

    Raises:
        GradatimError: as :func:`gradatim.training.train`; also if a checkpoint cannot be written.
    """
    assert settings.output_dir is not None, "a command keeps checkpoints"
    first: list[tuple[int, float]] = []  # the first update of this process and its time: a resumed training has others

    def show(made: int, planned: int) -> None:
        now = time.perf_counter()
        first[:] = first or [(made, now)]
        left = ""
        if made > first[0][0]:
            left = f", about {in_words((now - first[0][1]) / (made - first[0][0]) * (planned - made))} left"
        stage.note(f"update {made:,} of {planned:,}{left}")

    with disk_errors(settings.output_dir):
        return train(
            model,
            objective,
            terms,
            settings,
            evaluate=evaluate,
            reference=reference,
            on_update=show,
        )


def reported(stage: StageProgress, measure: Callable[[Any], float], what: str, sign: float) -> Callable[[Any], float]:
    """``measure``, with every result shown."""

    def evaluate(model: Any) -> float:
        stage.note("measuring")
        value = measure(model)
        stage.note(f"{what} {sign * value:.4f}")
        return value

    return evaluate


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
