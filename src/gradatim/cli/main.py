"""The command line: what every command shares, and where each one is."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

import gradatim
from gradatim.cli import evaluate, recipes, solve, trees
from gradatim.cli.advice import in_words_of
from gradatim.errors import GradatimError
from gradatim.store.files import file_error

_INTERRUPTED = 130  # what shells report for Ctrl-C
_RESUMABLE = {"run", "pretrain", "evaluate-scorer"}


class Commands(TyperGroup):
    """The commands, with every error that a user can put right shown as one sentence."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; exits with status 1 after an error and 130 after Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            goes_on = ctx.invoked_subcommand in _RESUMABLE
            fail(
                "interrupted" + ("; what was finished is kept, the same command goes on from there" if goes_on else "")
            )
            raise typer.Exit(_INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: end in silence
            raise typer.Exit(1) from None
        except (GradatimError, OSError, RuntimeError, MemoryError) as error:
            sentence = _sentence(error, self.commands.get(ctx.invoked_subcommand))
            if sentence is None or os.environ.get("GRADATIM_TRACEBACK"):
                raise
            fail(sentence)
            raise typer.Exit(1) from error


def _sentence(error: Exception, command: Any) -> str | None:
    """What a user should read, or ``None`` for an error that is the program's own."""
    if isinstance(error, GradatimError):
        return in_words_of(command, error)
    if isinstance(error, OSError):
        return str(file_error(error.filename or "a file", error))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            "out of memory; lower policy.max_branches, policy.cache_gigabytes, search.in_flight or "
            "training.tokens_per_batch"
        )
    return None


def fail(sentence: str) -> None:
    """Print an error on stderr."""
    Console(stderr=True).print(f"[bold red]error:[/] {escape(sentence)}", highlight=False, soft_wrap=True)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Search, score and train language models one step at a time.",
)
app.command("run")(recipes.run)
app.command("recipes")(recipes.list_recipes)
app.command("pretrain")(recipes.pretrain)
app.command("solve")(solve.solve)
app.command("evaluate-scorer")(evaluate.evaluate_scorer)
app.command("show")(trees.show)
app.command("export")(trees.export)
app.command("import")(trees.import_trees)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gradatim {gradatim.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Search, score and train language models one step at a time."""


def main() -> None:
    """The ``gradatim`` command."""
    warnings.simplefilter("ignore")  # other libraries' advice to programmers
    warnings.filterwarnings("always", category=UserWarning, module=r"gradatim(\.|$)")
    warnings.showwarning = _show_warning
    app()


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    Console(stderr=True).print(f"[yellow]warning:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
