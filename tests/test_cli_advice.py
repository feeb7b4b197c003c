"""Errors in the words of the command line: every argument that an error advises has them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import gradatim
from gradatim.cli.advice import RECIPE_KEYS, in_words_of
from gradatim.cli.main import app
from gradatim.errors import GradatimError
from gradatim.part import pages
from gradatim.recipes.reference import recipe_keys

SOURCE = Path(gradatim.__file__).parent


def command(name: str) -> Any:
    group: Any = typer.main.get_command(app)
    return group.commands[name]


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [
        ("run", "on_bad_line='skip'", "--set task.on_bad_line=skip"),
        ("run", "chat=None", "--set policy.chat=null"),
        ("run", "max_step_tokens", "policy.sampling.max_step_tokens"),
        ("run", "damaged='skip'", "--set trees.damaged=skip"),
        ("import", "malformed='skip'", "--skip-malformed"),
        ("evaluate-scorer", "dtype='float32'", "--dtype float32"),
        ("evaluate-scorer", "layout", "--layout"),
    ],
)
def test_an_argument_in_the_words_of_a_command(name: str, argument: str, expected: str) -> None:
    error = GradatimError(f"bad; mend it, or say {argument} (or not)", options=(argument,))
    assert in_words_of(command(name), error) == f"bad; mend it, or say {expected} (or not)"
    assert str(error) == f"bad; mend it, or say {argument} (or not)"


def test_only_the_advice_at_the_end_is_put_in_other_words() -> None:
    message = "the server says 'api='chat' and chat'; use api='chat' or leave chat out"
    error = GradatimError(message, options=("api='chat'", "chat"))
    expected = "the server says 'api='chat' and chat'; use --set policy.server.api=chat or leave policy.chat out"
    assert in_words_of(command("run"), error) == expected


def test_without_a_known_command_python_is_named() -> None:
    assert in_words_of(None, GradatimError("no; use api='chat'", options=("api='chat'",))).endswith("(in Python)")


def raised_errors() -> Iterator[tuple[str, str, list[str]]]:
    """Of every error that the package raises: where, its message as far as it is written out, and its options."""
    for path in sorted(SOURCE.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not getattr(call.func, "id", "").endswith("Error") or not call.args:
                continue
            given = [key.value for key in call.keywords if key.arg == "options"]
            parts = [part for value in given for part in getattr(value, "elts", [value])]
            options = ["".join(constants(part)) for part in parts]
            yield f"{path.relative_to(SOURCE)}:{call.lineno}", "".join(constants(call.args[0])), options


def constants(expression: ast.AST) -> list[str]:
    """The texts that are written out in an expression, in their order."""
    found = [each for each in ast.walk(expression) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return [str(each.value) for each in sorted(found, key=lambda each: (each.lineno, each.col_offset))]


def test_errors_declare_the_python_that_they_advise() -> None:
    for place, message, options in raised_errors():
        for argument in re.findall(r"(?<![\w.-])[a-z_]+=(?:'[^']*'|\"[^\"]*\"|True|False|None)", message):
            assert argument in options, f"{place} advises {argument} and does not declare it"
        for argument in options:
            assert argument in message, f"{place} declares {argument} and does not advise it"


def test_recipe_keys_are_those_of_recipes() -> None:
    known = {f"{section.path}.{key.name}" for section in recipe_keys() for key in section.keys}
    for key, kind in {"task": "tasks", "evaluation.scorer": "scorers"}.items():
        known |= {f"{key}.{option.name}" for page in pages(kind) for option in page.options}
    for argument, key in RECIPE_KEYS.items():
        assert key.rpartition(".")[2] == argument
        assert key in known
