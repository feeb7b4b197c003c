"""The command line: what every command shares, and where each one is."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

import gradatim
from gradatim.cli import (
    calibrate,
    check,
    compare,
    divide,
    evaluate,
    output,
    parts,
    recipes,
    replicate,
    solve,
    train_scorer,
    trees,
)
from gradatim.cli.advice import in_words_of
from gradatim.cli.output import Amount
from gradatim.errors import GradatimError, HelperError
from gradatim.processes import GRACE, is_first, process_count
from gradatim.store.files import file_error

_INTERRUPTED = 130  # what shells report for Ctrl-C
_QUIET, _VERBOSE = ("--quiet", "-q"), ("--verbose", "-v")
_TOGETHER = {"run", "compare", "replicate", "train-scorer"}
_RESUMABLE = {"run", "compare", "replicate", "pretrain", "evaluate-scorer", "train-scorer", "divide"}


class Commands(TyperGroup):
    """The commands, with every error that a user can put right shown as one sentence."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; of several processes, only commands that train can make use."""
        name, command, rest = super().resolve_command(ctx, args)
        if process_count() > 1 and name not in _TOGETHER:
            raise GradatimError(
                f"'gradatim {name}' makes no use of {process_count()} processes; start it alone, without torchrun or "
                f"accelerate (several train together in: {', '.join(sorted(_TOGETHER))})"
            )
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command; exits with status 1 after an error and 130 after Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if not is_first():
                raise typer.Exit(_INTERRUPTED) from None
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
            if sentence is None or output.is_verbose() or os.environ.get("GRADATIM_TRACEBACK"):
                raise
            if not is_first() and not isinstance(error, HelperError):
                time.sleep(GRACE)  # what is wrong in all processes ends the first one meanwhile, and with it the others
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
            "out of memory; lower policy.max_branches, policy.cache_gigabytes, trees.in_flight or "
            "training.tokens_per_batch"
        )
    return None


def fail(sentence: str) -> None:
    """Print an error on stderr."""
    output.say("error", "bold red", sentence)


class Command(TyperCommand):
    """A command whose usage names its arguments as its help does: ``RECIPE``, not ``{RECIPE}``.

    How much it says may be given behind its name as before it: ``gradatim run RECIPE -q``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = args[: args.index("--")] if "--" in args else args
        before = {} if ctx.parent is None else ctx.parent.params
        _set_amount(
            bool(before.get("quiet")) or any(name in given for name in _QUIET),
            bool(before.get("verbose")) or any(name in given for name in _VERBOSE),
        )
        kept = [each for each in given if each not in _QUIET + _VERBOSE]
        return super().parse_args(ctx, kept + args[len(given) :])

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Search, score and train language models one step at a time.",
)
_PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Runs": {
        "run": recipes.run,
        "compare": compare.compare,
        "replicate": replicate.replicate,
        "check": check.check,
        "recipes": recipes.show_recipes,
        "parts": parts.parts,
        "pretrain": recipes.pretrain,
    },
    "Models": {
        "solve": solve.solve,
        "train-scorer": train_scorer.train_scorer,
        "evaluate-scorer": evaluate.evaluate_scorer,
        "calibrate": calibrate.calibrate,
    },
    "Trees": {
        "show": trees.show,
        "export": trees.export,
        "import": trees.import_trees,
        "divide": divide.divide,
    },
}
for _panel, _commands in _PANELS.items():
    for _name, _function in _commands.items():
        app.command(_name, cls=Command, rich_help_panel=_panel)(_function)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gradatim {gradatim.__version__}")
        raise typer.Exit


@app.callback()
def common(
    quiet: bool = typer.Option(False, *_QUIET, help="Print errors and the result only."),
    verbose: bool = typer.Option(False, *_VERBOSE, help="Show other libraries' messages, and tracebacks."),
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Search, score and train language models one step at a time.

    Start with 'gradatim run quickstart', or 'gradatim recipes' for what else there is.
    """
    _set_amount(quiet, verbose)


def _set_amount(quiet: bool, verbose: bool) -> None:
    """Say how much this command writes.

    Raises:
        GradatimError: if it is both less and more.
    """
    if quiet and verbose:
        raise GradatimError("a command cannot be both quiet and verbose; leave -q or -v out")
    output.set_amount(Amount.QUIET if quiet else Amount.VERBOSE if verbose else Amount.NORMAL)


def main() -> None:
    """The ``gradatim`` command."""
    output.fit_streams()
    warnings.simplefilter("ignore")  # other libraries' advice to programmers
    warnings.filterwarnings("always", category=UserWarning, module=r"gradatim(\.|$)")
    warnings.showwarning = output.show_warning
    if not is_first():
        output.silence_process()
    app(prog_name="gradatim")
