"""An mkdocs hook: the commands of ``gradatim`` with their arguments and options, from the program itself.

The marker ``<!-- commands -->`` becomes a section for each command.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args, get_type_hints

_MARKER = "<!-- commands -->"


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Put the commands in the place of the marker."""
    return markdown.replace(_MARKER, "\n\n".join(_commands())) if _MARKER in markdown else markdown


def _commands() -> Iterator[str]:
    import typer

    from gradatim.cli.main import app

    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        words = [_label(each) for each in command.params if each.param_type_name == "argument"]
        options = [each for each in command.params if each.param_type_name == "option"]
        usage = " ".join(["gradatim", name, *words, *(["[OPTIONS]"] if options else [])])
        yield f"## gradatim {name}\n\n{command.help}\n\n```text\n{usage}\n```"
        hints = get_type_hints(command.callback)
        if command.params:
            rows = [_row(each, hints.get(each.name)) for each in command.params]
            yield "\n".join(["| | | default |", "|---|---|---|", *rows])


def _label(parameter: Any) -> str:
    """How the parameter is written on the command line."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return ", ".join(parameter.opts)


def _row(parameter: Any, hint: Any) -> str:
    text = parameter.help or ""
    if (choices := _choices(hint)) and choices[-1] not in text:
        text += " One of " + ", ".join(f"`{each}`" for each in choices) + "."
    default = getattr(parameter.default, "value", parameter.default)
    shown = "" if default in (None, False, ()) or callable(default) else f"`{default}`"
    cells = (f"`{_label(parameter)}`", text.strip(), "**required**" if parameter.required else shown)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _choices(hint: Any) -> list[str]:
    """The values of an enumeration, also an optional one."""
    kinds = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and issubclass(kind, Enum)]
    return [str(each.value) for each in kinds[0]] if kinds else []
