"""Saving models whole or not at all, and what a full disk looks like to the libraries that write them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from gradatim.store.files import file_error, sync_folder


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


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside ``folder``; what was written there replaces ``folder`` if the block succeeds.

    Raises:
        GradatimError: if the disk is full or the folder cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with disk_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
        sync_folder(folder.parent)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a model and its tokenizer; the folder appears whole or not at all. Adapters are merged into the weights.

    Raises:
        GradatimError: if the disk is full or the folder cannot be written.
    """
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    with whole_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def _number_of(error: SafetensorError) -> int:
    return errno.ENOSPC if "No space left" in str(error) or "os error 28" in str(error) else errno.EIO
