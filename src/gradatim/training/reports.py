"""Where the course of a training is told to beside its history: TensorBoard, trackio, Weights & Biases.

What talks to each of them is transformers' own callback. Each training is a run of its own there, however many of them
one process makes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from gradatim.errors import GradatimError
from gradatim.suggestions import suggestion

PROJECT = "gradatim"
"""The project that runs are filed under, where the environment names no other."""
TENSORBOARD_FOLDER = "tensorboard"
"""In the folder of a training's checkpoints."""
_EXTRAS = {"tensorboard", "trackio", "wandb"}


def check_reports(names: Sequence[str]) -> None:
    """Check that metrics can be reported to each of ``names``.

    Raises:
        GradatimError: if one is not known to transformers, or not installed.
    """
    installed = get_available_reporting_integrations() if names else []
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise GradatimError(
                f"report_to names {name!r}, which is not known; {suggestion(name, list(INTEGRATION_TO_CALLBACK))}"
            )
        if name not in installed:
            package = f"'gradatim[{name}]'" if name in _EXTRAS else name
            raise GradatimError(f"reporting to {name} needs it installed; install it with: pip install {package}")


@contextmanager
def reporting(names: Sequence[str], folder: Path) -> Iterator[list[TrainerCallback]]:
    """The callbacks that report one training to each of ``names``; its runs there end with it, however it ends.

    A run of Weights & Biases that somebody has begun already is gone on with, and left open.

    Args:
        names: as for :func:`check_reports`.
        folder: of the training; TensorBoard's files go into :data:`TENSORBOARD_FOLDER` there.
    """
    callbacks = [_callback(name, folder) for name in names]
    if "wandb" in names:
        os.environ.setdefault("WANDB_PROJECT", PROJECT)
    kept = {"wandb"} if getattr(sys.modules.get("wandb"), "run", None) is not None else set()
    try:
        yield callbacks
    finally:
        for module in (sys.modules.get(name) for name in {"wandb", "trackio"}.intersection(names) - kept):
            with suppress(RuntimeError):  # there is no run: training never began, or its end was reported already
                if module is not None:
                    module.finish()


def held_out_key(measure: str) -> str:
    """The name under which a held-out measure is reported: ``held-out pass@1`` as ``eval_held_out_pass_1``."""
    return "eval_" + re.sub(r"\W+", "_", measure)


def _callback(name: str, folder: Path) -> TrainerCallback:
    callback: Any = INTEGRATION_TO_CALLBACK[name]()
    if name == "tensorboard":
        callback.logging_dir = str(folder / TENSORBOARD_FOLDER)
    return callback
