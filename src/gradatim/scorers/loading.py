"""Process reward models in the layouts that they were published in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, AutoModelForCausalLM, PreTrainedModel

from gradatim.engine.loading import load_config, load_tokenizer, placed
from gradatim.engine.sources import find_source, refuse_adapter
from gradatim.errors import GradatimError
from gradatim.scorers.layouts import (
    DialogueLayout,
    Layout,
    OwnLayout,
    SeparatorLayout,
    StepTagLayout,
    StepTokenLayout,
    ValueHeadLayout,
    has_step_tag,
)
from gradatim.store.files import write_json
from gradatim.text.prompts import ChatFormat

LAYOUT_FILE = "step_scoring.json"
"""Beside a model that was trained here: how it reads a problem."""

_NAMED_REWARD_MODEL = re.compile(r"(?<![a-z])prm(?![a-z])|reward|shepherd", re.IGNORECASE)

LAYOUTS: dict[str, type[Any]] = {
    layout.name: layout
    for layout in (OwnLayout, StepTokenLayout, StepTagLayout, DialogueLayout, SeparatorLayout, ValueHeadLayout)
}


def load_scoring_model(
    name_or_path: str | Path, layout: str = "auto", *, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[PreTrainedModel, Layout]:
    """A process reward model and its layout, from a hub id, a local folder or ``shipped:NAME``.

    Args:
        name_or_path: the model.
        layout: a name of :data:`LAYOUTS`, or ``"auto"`` to tell it from the model's architecture, tokenizer and
            :data:`LAYOUT_FILE`.
        dtype: of the weights.
        options: those of :func:`gradatim.engine.loading.placed`.

    Raises:
        GradatimError: if it cannot be loaded, or its layout cannot be told.
    """
    refuse_adapter(name_or_path)
    source = find_source(name_or_path).name
    config = load_config(source)
    tokenizer = load_tokenizer(source)
    chosen = detect_layout(source, config, tokenizer) if layout == "auto" else layout
    if chosen not in LAYOUTS:
        raise GradatimError(f"there is no layout {layout!r} of reward models; choose one of: {', '.join(LAYOUTS)}")
    made: Layout = own_layout(source) if chosen == OwnLayout.name else LAYOUTS[chosen](tokenizer)
    auto_class, more = _model_class(made, config)
    return placed(auto_class, source, dtype=dtype, trust_remote_code=False, **more, **options), made


def has_own_layout(source: str) -> bool:
    """Whether a folder holds a reward model that was trained here."""
    return (Path(source) / LAYOUT_FILE).is_file()


def own_layout(source: str) -> OwnLayout:
    """The layout of a model that was trained here, from its folder; see :func:`load_scoring_model` for errors."""
    return OwnLayout(load_tokenizer(source), read_layout_file(source))


def write_layout_file(folder: Path, chat: ChatFormat | None) -> None:
    """Note beside a model that was trained here how it reads a problem.

    Raises:
        GradatimError: if the disk is full or the folder cannot be written.
    """
    value = {"layout": OwnLayout.name, "chat": None if chat is None else chat.to_json()}
    write_json(folder / LAYOUT_FILE, value)


def detect_layout(source: str, config: Any, tokenizer: Any) -> str:
    """The layout that a model's architecture, files, tokenizer and name tell of.

    Reward models that answer in tokens have the architecture and tokenizer of any language model, so that only a name
    such as ``math-shepherd-mistral-7b-prm`` tells them apart.

    Raises:
        GradatimError: if nothing tells of one, or it is an ordinary language model as far as anybody can see.
    """
    architecture = (config.architectures or ["?"])[0]
    if has_own_layout(source):
        return OwnLayout.name
    if architecture.endswith("ForProcessRewardModel"):
        return StepTokenLayout.name
    if architecture.endswith(("ForPrmModel", "ForRewardModel")):
        return ValueHeadLayout.name
    if architecture.endswith("ForTokenClassification"):
        return SeparatorLayout.name
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        layout = DialogueLayout if tokenizer.chat_template else StepTagLayout if has_step_tag(tokenizer) else None
        if layout is not None and _NAMED_REWARD_MODEL.search(Path(source).name):
            return layout.name
        raise GradatimError(
            f"{source!r} is an ordinary language model, as far as its files and its name tell, and judges no steps; "
            "name a process reward model, train one from it (gradatim train-scorer), or if it is one, name its layout "
            f"with layout='{(layout or DialogueLayout).name}'",
            options=(f"layout='{(layout or DialogueLayout).name}'",),
        )
    raise GradatimError(
        f"{source!r} is a {architecture}, which no layout of process reward models is known by; name another model, "
        f"or its layout with layout='NAME' ({', '.join(LAYOUTS)})",
        options=("layout='NAME'",),
    )


def read_layout_file(source: str) -> ChatFormat | None:
    """How a model in a folder that was trained here puts a problem; ``None`` for plain text, or where nothing is noted.

    Raises:
        GradatimError: if the file is damaged.
    """
    path = Path(source) / LAYOUT_FILE
    if not path.is_file():
        return None
    try:
        chat = json.loads(path.read_text(encoding="utf-8"))["chat"]
        return None if chat is None else ChatFormat.from_json(chat)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GradatimError(f"{LAYOUT_FILE} of {source!r} is damaged; save the model again") from error


def _model_class(layout: Layout, config: Any) -> tuple[Any, dict[str, Any]]:
    """The class that loads a layout's weights, and what its ``from_pretrained`` needs."""
    if isinstance(layout, StepTagLayout | DialogueLayout):
        return AutoModelForCausalLM, {}
    config.classifier_dropout = 0.0  # or a new head's default would drop features
    classifier = _classifier(config)
    if isinstance(layout, StepTokenLayout):
        config.num_labels = 2
        return _with_two_layer_head(classifier), {"config": config}
    if isinstance(layout, ValueHeadLayout):
        config.num_labels = 1
        return classifier, {"config": config, "key_mapping": {r"^v_head\.summary": "score"}}
    return classifier, {"config": config}


def _classifier(config: Any) -> Any:
    try:
        return MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING[type(config)]
    except KeyError as error:
        raise GradatimError(f"transformers has no token classifier for {config.model_type!r} models") from error


def _with_two_layer_head(classifier: Any) -> Any:
    """The class of a token classifier whose head has a hidden layer, under the names of Qwen's published weights."""

    class ProcessRewardModel(classifier):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            size = config.get_text_config().hidden_size
            self.score = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, config.num_labels))
            self.post_init()

    return ProcessRewardModel
