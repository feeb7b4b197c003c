"""The first minutes at the command line: help, completion, recipes to read and to copy, what other libraries say."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gradatim.cli import output
from gradatim.cli.main import app
from gradatim.recipes import PretrainRecipe, Recipe, shipped_recipes
from gradatim.recipes.reference import recipe_keys

group: Any = typer.main.get_command(app)
COMMANDS = sorted(group.commands)


def call(*arguments: str, columns: int = 80) -> Any:
    with warnings.catch_warnings():
        return CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns), "TERM": "xterm"})


def program(*arguments: str, **environment: str) -> Any:
    command = [sys.executable, "-m", "gradatim", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, timeout=60)


@pytest.fixture(autouse=True)
def normal_again() -> Iterator[None]:
    yield
    output.set_amount(output.Amount.NORMAL)


def words(text: str) -> set[str]:
    return set(re.sub("[│╭╮╰╯─]", " ", text).split())


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_breaks_no_word_at_80_columns(command: str) -> None:
    arguments = [command] * bool(command)
    narrow, wide = call(*arguments, "-h"), call(*arguments, "--help", columns=400)
    assert narrow.exit_code == wide.exit_code == 0
    assert words(narrow.stdout) <= words(wide.stdout)
    assert all(len(line) <= 80 for line in narrow.stdout.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_every_argument_is(command: str) -> None:
    for parameter in group.commands[command].params:
        assert parameter.help, parameter.name
        if parameter.param_type_name == "argument":
            assert parameter.metavar == parameter.metavar.upper()
            assert "{" not in call(command, "-h").stdout


def test_the_module_is_the_command() -> None:
    result = program("--version")
    assert result.returncode == 0
    assert result.stdout.startswith(b"gradatim ")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("gradatim run qu", ["quickstart"]),
        ("gradatim recipes word-problems-", ["word-problems-policy", "word-problems-verifiers"]),
        ("gradatim solve x --policy shipped:countdown-", ["shipped:countdown-reward"]),
        ("gradatim export x --format omega", ["omegaprm"]),
        ("gradatim export x --data sibling_p", ["sibling_pairs"]),
        ("gradatim import x --format math_s", ["math_shepherd"]),
    ],
)
def test_completion(typed: str, offered: list[str]) -> None:
    place = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    result = program(_GRADATIM_COMPLETE="complete_bash", **place)
    assert result.stdout.decode().split() == offered


def test_a_recipe_is_printed_as_it_is_and_copied(tmp_path: Path) -> None:
    original = shipped_recipes()["quickstart"].read_bytes()
    assert program("recipes", "quickstart").stdout == original
    copy = tmp_path / "mine.yaml"
    assert "gradatim run" in call("recipes", "quickstart", "--copy", str(copy)).stdout
    assert copy.read_bytes() == original
    again = call("recipes", "gsm8k", "--copy", str(copy))
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert copy.read_bytes() == original
    assert "did you mean 'quickstart'" in call("recipes", "quikstart").stderr


def test_keys_are_explained() -> None:
    shown = call("recipes", "--keys", "policy.sampling").stdout
    assert "temperature: 0 takes the likeliest token" in shown
    assert "default: 1.0" in shown
    assert "did you mean 'policy.sampling'" in call("recipes", "--keys", "policy.samplin").stderr
    assert call("recipes", "--keys").stdout.count("policy.server\n") == 1
    assert "'search' is a part: " in call("recipes", "--keys", "search").stderr


@pytest.mark.parametrize("model", [Recipe, PretrainRecipe])
def test_the_reference_has_every_key_with_its_meaning(model: Any) -> None:
    sections = recipe_keys(model)
    assert {key.name for key in sections[0].keys} == set(model.model_fields)
    assert all(key.meaning and key.values for section in sections for key in section.keys)


def test_other_libraries_are_silent_unless_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.utils.logging as library

    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    library.enable_progress_bar()
    assert call("recipes").exit_code == 0
    assert not library.is_progress_bar_enabled()
    assert logging.getLogger("huggingface_hub").level == logging.ERROR
    logging.getLogger("huggingface_hub").setLevel(logging.WARNING)
    assert call("-v", "recipes").exit_code == 0
    assert logging.getLogger("huggingface_hub").level == logging.WARNING


def test_quiet_says_only_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    output.set_amount(output.Amount.QUIET)
    output.progress_console().print("on the way")
    output.result_console().print("the result")
    assert capsys.readouterr().out == "the result\n"
    assert "cannot be both" in call("-q", "-v", "recipes").stderr


@pytest.mark.parametrize("arguments", [("-q", "recipes"), ("recipes", "-q"), ("recipes", "gsm8k", "--quiet")])
def test_how_much_is_said_stands_before_or_behind_the_commands_name(arguments: tuple[str, ...]) -> None:
    assert call(*arguments).exit_code == 0
    assert output.progress_console().quiet
    assert "cannot be both" in call(*arguments, "-v").stderr
    assert call("recipes").exit_code == 0
    assert not output.progress_console().quiet


def test_verbose_shows_the_traceback() -> None:
    assert program("recipes", "nothing").stderr.count(b"\n") == 1
    assert b"Traceback" in program("-v", "recipes", "nothing").stderr


def test_ascii_terminals_get_ascii() -> None:
    result = program("recipes", "--keys", "learn", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii()
    assert b"?" not in result.stdout
    assert program("-h", PYTHONIOENCODING="ascii").stdout.isascii()


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; import gradatim; from gradatim.cli.main import app; "
        "runs = [CliRunner().invoke(app, each).exit_code for each in (['-h'], ['recipes'], ['recipes', '--keys'])]; "
        "assert runs == [0, 0, 0]; "
        "print([name for name in ('torch', 'transformers', 'matplotlib', 'datasets', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert result.stdout.strip() == b"[]", result
