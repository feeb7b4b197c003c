"""``gradatim run``, ``gradatim recipes`` and ``gradatim pretrain``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gradatim.errors import GradatimError

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a YAML file.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key, e.g. problems.train=100. May be repeated."),
]

_WIDTH = 120


def run(
    recipe: RecipeArgument,
    policy: Annotated[
        str | None,
        typer.Option(help="In place of the recipe's: shipped:NAME, a hub id, a folder, or a server's URL."),
    ] = None,
    set_: SetOption = None,
    output: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME by default.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete an earlier run in the folder first.")] = False,
) -> None:
    """Run a recipe, or go on with a run that was stopped."""
    from gradatim.recipes import Recipe, load_recipe

    chosen = [] if policy is None else [f"policy.model={json.dumps(policy)}"]
    loaded = load_recipe(recipe, [*chosen, *(set_ or ())])
    if not isinstance(loaded, Recipe):
        raise GradatimError(f"the recipe {recipe!r} trains a model from scratch; use 'gradatim pretrain {recipe}'")
    from gradatim.cli.tables import print_sections
    from gradatim.pipeline import Progress, run_recipe
    from gradatim.pipeline.page import terminal_sections

    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)  # tables in a log file should not be broken at 80 columns
    report = run_recipe(
        loaded, Path("runs") / loaded.name if output is None else output, fresh=fresh, progress=Progress(console)
    )
    print_sections(terminal_sections(report), console)


def list_recipes() -> None:
    """List the recipes that come with the package."""
    import yaml
    from rich.table import Table

    from gradatim.recipes import shipped_recipes

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, path in shipped_recipes().items():
        table.add_row(f"[bold]{name}[/]", str(yaml.safe_load(path.read_text(encoding="utf-8")).get("summary", "")))
    Console().print(table)


def pretrain(
    recipe: RecipeArgument,
    output: Annotated[Path, typer.Option(help="The folder of the model; checkpoints go there too.")],
    set_: SetOption = None,
) -> None:
    """Train a small policy from scratch, or go on with one."""
    from gradatim.recipes import PretrainRecipe, load_recipe

    loaded = load_recipe(recipe, set_ or ())
    if not isinstance(loaded, PretrainRecipe):
        raise GradatimError(f"the recipe {recipe!r} does not train from scratch; use 'gradatim run {recipe}'")
    from gradatim.pipeline.saving import disk_errors
    from gradatim.pipeline.tasks import make_generated_task, make_tokenizer
    from gradatim.training.from_scratch import ModelSize, PretrainingSettings, pretrain

    task = make_generated_task(loaded.task)
    size, settings = ModelSize(**loaded.size.model_dump()), PretrainingSettings(**loaded.training.model_dump())
    with disk_errors(output):
        log = pretrain(task, make_tokenizer(task), size, settings, output)
    Console().print(f"{log['parameters']:,} parameters, {log['steps']:,} steps; saved to {output}", highlight=False)
