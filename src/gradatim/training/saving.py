"""Saving models whole or not at all, in the type that they had, and what a full disk looks like to their writers."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from gradatim.engine.heads import save_heads, without_heads
from gradatim.engine.loading import load_config
from gradatim.errors import GradatimError
from gradatim.scorers.loading import write_layout_file
from gradatim.store.files import atomic_folder, file_error
from gradatim.text.prompts import ChatFormat


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn failures to write under ``path`` into the sentence that a user should see.

    torch and safetensors report a failed write by errors of their own, without the system's error number.

    Raises:
        GradatimError: if writing failed.
    """
    try:
        yield
    except OSError as error:
        raise file_error(error.filename or path, error) from error
    except SafetensorError as error:
        raise file_error(path, OSError(_number_of(error), str(error))) from error
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "iostream error" not in str(error):
            raise
        raise file_error(path, OSError(errno.ENOSPC, str(error))) from error


def save_model(
    model: Any,
    tokenizer: Any,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    also: Callable[[Path], None] | None = None,
) -> None:
    """Save a model, its heads and its tokenizer; the folder appears whole or not at all. Adapters are merged into the
    weights.

    What is in the folder already and is no model's stays.

    Args:
        model: a transformers model, or one with peft's adapters.
        tokenizer: the model's.
        folder: where it goes.
        dtype: the type of the weights in the file. By default that of the folder or hub id that the model was loaded
            from: a model that was trained in float32 is saved as small as it came.
        also: writes into the new folder whatever else belongs there, before it appears.

    Raises:
        GradatimError: if the disk is full or the folder cannot be written.
    """
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload().requires_grad_()  # it may be trained again
    with disk_errors(Path(folder)), atomic_folder(folder, keep=_is_no_weights) as partial:
        with _weights_as(model, stored_dtype(model) if dtype is None else dtype):
            with without_heads(model):
                model.save_pretrained(partial)
            save_heads(model, partial)
        tokenizer.save_pretrained(partial)
        if also is not None:
            also(partial)


def save_process_reward_model(
    model: Any,
    tokenizer: Any,
    folder: str | Path,
    chat: ChatFormat | None = None,
    *,
    dtype: torch.dtype | None = None,
    also: Callable[[Path], None] | None = None,
) -> None:
    """Save a reward model that was trained here, so that Gradatim and any transformers program load it.

    Args:
        model: a token classifier; adapters are merged into its weights.
        tokenizer: the one that its trees were in the tokens of.
        folder: gets the weights, the tokenizer and the file that says how the model reads a problem.
        chat: how problems were put while it was trained; ``None`` for plain text.
        dtype, also: as for :func:`save_model`.

    Raises:
        GradatimError: as :func:`save_model`.
    """

    def layout(partial: Path) -> None:
        write_layout_file(partial, chat)
        if also is not None:
            also(partial)

    save_model(model, tokenizer, folder, dtype=dtype, also=layout)


def stored_dtype(model: Any) -> torch.dtype:
    """The type of the weights of the folder or hub id that ``model`` was loaded from, else its own."""
    own: torch.dtype = next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)
    source = getattr(model, "name_or_path", "")
    if not source:
        return own
    try:
        stored = load_config(source).dtype
    except GradatimError:  # the folder is no more
        return own
    return stored if isinstance(stored, torch.dtype) and stored.is_floating_point else own


@contextmanager
def _weights_as(model: Any, dtype: torch.dtype) -> Iterator[None]:
    """Let the model's weights have another type while this lasts; then they are what they were, bit for bit."""
    before = {each: each.data for each in model.parameters() if each.is_floating_point() and each.dtype != dtype}
    config_dtype = model.config.dtype
    try:
        for parameter, value in before.items():
            parameter.data = value.to(dtype)
        yield
    finally:
        for parameter, value in before.items():
            parameter.data = value
        model.config.dtype = config_dtype


def _is_no_weights(path: Path) -> bool:
    return path.suffix not in {".safetensors", ".bin"} and not path.name.endswith(".index.json")


def _number_of(error: SafetensorError) -> int:
    return errno.ENOSPC if "No space left" in str(error) or "os error 28" in str(error) else errno.EIO
