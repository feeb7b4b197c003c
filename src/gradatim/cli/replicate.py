"""``gradatim replicate``: the claims of papers, tested here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gradatim.cli.output import progress_console, result_console
from gradatim.errors import GradatimError


def replicate(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Studies by name or file; all that ship by default.")
    ] = None,
    size: Annotated[
        Literal["smoke", "full"], typer.Option(help="smoke shows that all works (minutes each), full shows something.")
    ] = "smoke",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the studies. May be repeated."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The folder of the report and of all runs.")] = Path("runs/replication"),
    list_: Annotated[bool, typer.Option("--list", help="List the studies that ship.")] = False,
) -> None:
    """Test claims of papers at equal compute, or go on with it; the report has all that was tested."""
    from gradatim.recipes import Study, load_as, shipped_studies

    if list_:
        if names:
            raise GradatimError("--list shows all studies; leave the names out")
        _list_studies()
        return
    studies = [load_as(Study, name, set_ or ()) for name in names or shipped_studies()]
    from gradatim.cli.tables import print_sections
    from gradatim.run.progress import Progress
    from gradatim.run.replicating import replicate as run_studies
    from gradatim.run.replication_report import overview_sections

    report = run_studies(studies, output, size, progress=Progress(progress_console()))
    print_sections(overview_sections(report), result_console())
    result_console().print(f"\nReport: {output / 'report.md'}", highlight=False, markup=False, soft_wrap=True)


def _list_studies() -> None:
    from rich.table import Table

    from gradatim.recipes import Study, load_as, shipped_studies

    table = Table(box=None, show_header=False, pad_edge=False)
    for name in shipped_studies():
        study = load_as(Study, name)
        table.add_row(f"[bold]{name}[/]", f"[dim]{', '.join(study.systems)}[/]", study.summary)
    result_console().print(table)
