"""Errors in the words of the command line: ``--set task.on_bad_line=skip`` where Python has ``on_bad_line='skip'``."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from gradatim.errors import GradatimError

RECIPE_KEYS = {
    "adapter": "policy.adapter",
    "api": "policy.server.api",
    "chat": "policy.chat",
    "concurrency": "policy.server.concurrency",
    "config": "task.config",
    "damaged": "trees.damaged",
    "dtype": "policy.dtype",
    "engine": "policy.engine",
    "layout": "evaluation.scorer.layout",
    "max_step_tokens": "policy.sampling.max_step_tokens",
    "max_steps": "policy.sampling.max_steps",
    "model": "policy.server.model",
    "on_bad_line": "task.on_bad_line",
    "requests_per_minute": "policy.server.requests_per_minute",
    "retries": "policy.server.retries",
    "source": "task.source",
    "splits": "task.splits",
    "timeout": "policy.server.timeout",
    "validation_fraction": "task.validation_fraction",
}
"""The keys of a recipe by the arguments that they set, of those that errors name."""


def in_words_of(command: Any, error: GradatimError) -> str:
    """The message of ``error`` with the options of ``command`` in the place of the arguments that it names.

    An argument is an option of the command's own (``--layout own``), a switch (``malformed='skip'`` is
    ``--skip-malformed``), or a key of the recipe where the command takes ``--set``. One that the command does not have
    stays as it is and is said to be Python's.

    Args:
        command: a click command; ``None`` where none is known.
        error: what went wrong.
    """
    message = str(error)
    for argument in error.options:
        # Advice ends a message: what stands before it may quote the same words from a file or a server.
        found = list(re.finditer(rf"(?<![\w.]){re.escape(argument)}(?![\w=])", message))
        if found:
            message = message[: found[-1].start()] + _form(command, argument) + message[found[-1].end() :]
    return message


def _form(command: Any, argument: str) -> str:
    """The command's words for ``name`` or ``name=value``."""
    name, equals, written = argument.partition("=")
    value = _plain(written) if equals else None
    flags = {each.name: each.opts[0] for each in getattr(command, "params", ()) if each.param_type_name == "option"}
    if f"{value}_{name}" in flags:
        return str(flags[f"{value}_{name}"])
    if name in flags:
        return str(flags[name]) if value is None else f"{flags[name]} {value}"
    if "set_" in flags and name in RECIPE_KEYS:
        return RECIPE_KEYS[name] if value is None else f"--set {RECIPE_KEYS[name]}={value}"
    return f"{argument} (in Python)"


def _plain(value: str) -> str:
    """A value without Python's marks: no quotes, ``false`` for ``False``."""
    try:
        meant = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return meant if isinstance(meant, str) else json.dumps(meant)
