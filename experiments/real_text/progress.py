"""Progress lines of long stages."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_START = time.monotonic()


def say(message: str) -> None:
    """Print a line with the minutes since the start."""
    print(f"[{(time.monotonic() - _START) / 60:6.1f} min] {message}", flush=True)


class ReportLoss(TrainerCallback):
    """Prints the loss of a training whenever it is logged."""

    def __init__(self, name: str) -> None:
        self._name = name

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if logs and "loss" in logs:
            say(f"{self._name}: update {state.global_step} of {state.max_steps}, loss {float(logs['loss']):.3f}")
