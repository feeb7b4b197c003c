"""``gradatim parts``: what a recipe can be put together of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape

from gradatim.cli.completion import complete_kind
from gradatim.cli.output import result_console
from gradatim.errors import GradatimError


def parts(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", autocompletion=complete_kind, help="Such as search; all by default.")
    ] = None,
) -> None:
    """List the parts of recipes with their options."""
    from rich.padding import Padding

    from gradatim.part import kinds, pages

    console = result_console()
    for each in kinds() if kind is None else [kind]:
        console.print(f"[bold]{each}[/]", highlight=False)
        for page in pages(each):
            console.print(Padding(f"[cyan]{page.name}[/]: {escape(page.summary)}", (0, 0, 0, 2)), highlight=False)
            for option in page.options:
                default = "required" if option.default is None else f"default: {option.default}"
                told = f"{option.name} ({default}): {option.meaning}".removesuffix(": ")
                console.print(Padding(f"[dim]{escape(told)}[/]", (0, 0, 0, 6)), highlight=False)
        console.print()


def described(name: str, settings: Sequence[str] | None) -> str | dict[str, Any]:
    """A part as :func:`gradatim.part.make` takes it, by its name and ``--set option=value``.

    Raises:
        GradatimError: if a setting is not of this form, or the name is ``auto``, of which nobody knows the options.
    """
    from gradatim.recipes.overrides import apply_override

    if settings and name == "auto":
        raise GradatimError("--set needs --format, whose options it sets; name the format")
    content: dict[str, Any] = {"name": name}
    for setting in settings or ():
        apply_override(content, setting)
    return content if settings else name
