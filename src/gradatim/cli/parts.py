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
        str | None, typer.Argument(metavar="KIND", autocompletion=complete_kind, help="Such as search.")
    ] = None,
) -> None:
    """List the kinds of parts, or the parts of one with their options and papers."""
    from rich.padding import Padding

    from gradatim.part import kinds, pages

    console = result_console()
    if kind is None:
        for name, summary in kinds().items():
            console.print(f"[cyan]{name}[/]: {escape(summary)}", highlight=False)
        console.print("\ngradatim parts KIND lists the parts of one with their options.", style="dim")
        return
    for page in pages(kind):
        paper = "" if page.paper is None or page.paper in page.summary else f" ({page.paper})"
        console.print(f"[cyan]{page.name}[/]: {escape(page.summary + paper)}", highlight=False)
        for option in page.options:
            default = "required" if option.default is None else f"default: {option.default}"
            told = f"{option.name} ({default}): {option.meaning}".removesuffix(": ")
            console.print(Padding(f"[dim]{escape(told)}[/]", (0, 0, 0, 4)), highlight=False)


def described(name: str, settings: Sequence[str] | None, **given: Any) -> str | dict[str, Any]:
    """A part as :func:`gradatim.part.make` takes it, by its name, options that are given, and ``--set option=value``.

    Raises:
        GradatimError: if a setting is not of this form, or the name is ``auto``, of which nobody knows the options.
    """
    from gradatim.recipes.overrides import apply_override

    if settings and name == "auto":
        raise GradatimError("--set needs --format, whose options it sets; name the format")
    content: dict[str, Any] = {"name": name, **given}
    for setting in settings or ():
        apply_override(content, setting)
    return content if settings or given else name
