"""Process reward models: a decoder with a token-level head."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForTokenClassification
from transformers.utils import logging

from gradatim.engine.loading import load_config
from gradatim.engine.sources import find_source, load_from, refuse_adapter
from gradatim.errors import GradatimError


def load_process_reward_model(
    path: str | Path, *, labels: Literal[1, 2] | None = None, dtype: torch.dtype = torch.float32, **options: Any
) -> Any:
    """A token classification model from a reward model's folder, or from a causal language model's with a new head.

    The result is an ordinary transformers model: ``save_pretrained`` writes a folder that
    ``AutoModelForTokenClassification.from_pretrained`` loads. The logit at a step's last token says how good the step
    is; with two labels, label 1 is "right".

    Args:
        path: a folder, a hub id or ``shipped:NAME``.
        labels: outputs of the head; by default those of a reward model's folder, and one for a new head.
        dtype: of the weights.
        options: passed on to ``from_pretrained``.

    Raises:
        GradatimError: if there is no such model, or its architecture has no token classification head.
    """
    refuse_adapter(path)
    source = find_source(path)
    config = load_config(path)
    is_reward_model = any("ForTokenClassification" in name for name in config.architectures or ())
    if labels is not None or not is_reward_model:
        config.num_labels = labels or 1
    if config.num_labels not in (1, 2):
        raise GradatimError(
            f"a process reward model has one label or two, but {path} is a classifier of {config.num_labels}; name a "
            "decoder, or a model that was trained to judge steps"
        )
    # A new head drops features by default; scores of one step would then differ from pass to pass.
    if getattr(config, "classifier_dropout", None) is None:
        config.classifier_dropout = 0.0
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # a new head is no news here, and is reported as missing
    try:
        return load_from(
            source,
            "a process reward model of",
            lambda name, **where: AutoModelForTokenClassification.from_pretrained(
                name, config=config, dtype=dtype, **where, **options
            ),
        )
    finally:
        logging.set_verbosity(verbosity)
