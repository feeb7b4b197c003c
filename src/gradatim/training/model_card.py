"""The README of a trained model's folder: what it is, how to use it, how it was made, and what was measured.

The file is a model card as the Hugging Face hub reads it, so that the folder can be uploaded as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from gradatim.errors import GradatimError
from gradatim.store.files import write_text
from gradatim.text.boundaries.base import Boundary
from gradatim.text.prompts import ChatFormat
from gradatim.training.card_code import policy_use, reward_model_use

Kind = Literal["process-reward-model", "policy"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REWARD_MODEL_INTRODUCTION = """\
A process reward model: it reads a problem and the steps of a solution, and says of each step how likely it is right.
It is a token classifier with {outputs}. Read it at the **last token of each step**; what it says at other tokens means
nothing."""

_OUTPUTS = {
    1: 'one output, the logit of "right"',
    2: 'two outputs, of which label 1 is "right" and label 0 is "wrong"',
}

_POLICY_INTRODUCTION = "A language model that solves problems step by step; each step ends with {ends}."


def write_model_card(
    folder: str | os.PathLike[str],
    *,
    kind: Kind,
    base_model: str,
    recipe: Mapping[str, Any],
    data: str,
    metrics: Mapping[str, float],
    chat: ChatFormat | None,
    boundary: Boundary,
    title: str | None = None,
    labels: Literal[1, 2] = 1,
    threshold: float | None = None,
    first_error_threshold: float | None = None,
    license: str | None = None,
) -> None:
    """Write ``README.md`` into a saved model's folder, whole or not at all.

    Args:
        folder: where the model was saved.
        kind: what the model is.
        base_model: what it was trained from. It becomes part of the metadata if it is a hub id.
        recipe: everything that made the model, its seed included, as plain values.
        data: what it was trained on, as one sentence.
        metrics: what was measured, by names that readers understand.
        title: heads the card; by default the folder's name.
        chat: the conversation in which the model was given problems; ``None`` where they were plain text.
        boundary: what ended the steps that it learned from.
        labels: outputs of a process reward model.
        threshold: the score from which on a step is best called right, where it was measured.
        first_error_threshold: the score below which a solution's first step is best called its first error, likewise.
        license: the license's identifier on the hub, where there is one.

    Raises:
        GradatimError: if there is no such folder or it cannot be written.
    """
    from huggingface_hub import ModelCardData

    path = Path(folder)
    if not path.is_dir():
        raise GradatimError(f"there is no model folder {os.fspath(folder)!r} to write a card for; save the model first")
    is_policy = kind == "policy"
    metadata = ModelCardData(
        base_model=_hub_id(base_model),
        library_name="transformers",
        license=license,
        pipeline_tag="text-generation" if is_policy else "token-classification",
        tags=["gradatim", kind],
    )
    if is_policy:
        introduction = _POLICY_INTRODUCTION.format(ends=boundary.words)
        use = policy_use(chat, boundary)
    else:
        introduction = _REWARD_MODEL_INTRODUCTION.format(outputs=_OUTPUTS[labels])
        use = reward_model_use(labels, chat, boundary)
    sections = [
        f"---\n{metadata}\n---",
        f"# {title or path.resolve().name}",
        introduction,
        f"## Use\n\n{use}",
        f"## Training\n\nTrained with Gradatim from {_code(base_model)}. {data}",
        f"## Measured\n\n{_measured(metrics, threshold, first_error_threshold)}",
        f"## Recipe\n\n```yaml\n{yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True).rstrip()}\n```",
    ]
    write_text(path / "README.md", "\n\n".join(sections) + "\n")


def _hub_id(base_model: str) -> str | None:
    """The base model where it is a hub id: the hub refuses other names, and folders of one machine help nobody."""
    return base_model if _HUB_ID.fullmatch(base_model) and not Path(base_model).exists() else None


def _code(name: str) -> str:
    return f"`{name}`"


def _measured(metrics: Mapping[str, float], threshold: float | None, first_error: float | None) -> str:
    """The measurements as a table, and what each threshold is for."""
    parts = []
    if metrics:
        rows = [f"| {name.replace('|', '/')} | {value:.4g} |" for name, value in metrics.items()]
        parts.append("\n".join(["| what | value |", "|---|---:|", *rows]))
    else:
        parts.append("Nothing was held out to measure it by.")
    if threshold is not None:
        parts.append(f"A step is best called right if its probability is at least {threshold:.4g}.")
    if first_error is not None:
        parts.append(f"First errors are best found as the first step with a probability below {first_error:.4g}.")
    return "\n\n".join(parts)
