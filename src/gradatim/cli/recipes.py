"""``gradatim run``, ``gradatim recipes`` and ``gradatim pretrain``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from gradatim.cli.completion import complete_model, complete_recipe
from gradatim.cli.output import progress_console, result_console
from gradatim.errors import GradatimError

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", autocompletion=complete_recipe, help="A shipped recipe's name, or the path of a YAML file."
    ),
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        autocompletion=complete_model,
        help="In place of the recipe's: shipped:NAME, a hub id, a folder, or a server's URL.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key, e.g. problems.train=100 (all: gradatim recipes --keys). May be repeated.",
    ),
]
OutputOption = Annotated[Path | None, typer.Option(help="The run folder; runs/NAME by default.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Delete an earlier run in the folder first.")]


def chosen_policy(policy: str | None) -> list[str]:
    """The policy that a command names, as a change of the recipe."""
    return [] if policy is None else [f"policy.model={json.dumps(policy)}"]


def run(
    recipe: RecipeArgument,
    policy: PolicyOption = None,
    set_: SetOption = None,
    output: OutputOption = None,
    fresh: FreshOption = False,
    size: Annotated[
        Literal["smoke", "full"], typer.Option(help="smoke shows in minutes that all works: ten problems.")
    ] = "full",
) -> None:
    """Run a recipe, or go on with a run that was stopped."""
    from gradatim.recipes import Recipe, load_as
    from gradatim.recipes.smoke import smoke_size

    loaded = load_as(Recipe, recipe, [*chosen_policy(policy), *(set_ or ())])
    name = loaded.name
    if size == "smoke":
        loaded, name = smoke_size(loaded), f"{name}-smoke"
    from gradatim.cli.tables import print_sections
    from gradatim.run import Progress, run_recipe
    from gradatim.run.page import terminal_sections

    report = run_recipe(
        loaded,
        Path("runs") / name if output is None else output,
        fresh=fresh,
        progress=Progress(progress_console()),
    )
    print_sections(terminal_sections(report), result_console())


def show_recipes(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE", autocompletion=complete_recipe, help="Print this one; with --keys, name a section."
        ),
    ] = None,
    copy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Copy the recipe into a new file, to change it.")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="Say what the keys of recipes mean.")] = False,
) -> None:
    """List the recipes that come with the package, print or copy one, or explain the keys of recipes."""
    if keys:
        if copy is not None:
            raise GradatimError("--keys explains and --copy copies; leave one out")
        _print_keys(recipe or "")
    elif recipe is None:
        if copy is not None:
            raise GradatimError("--copy needs a recipe: write gradatim recipes RECIPE --copy FILE")
        _list_recipes()
    else:
        _print_or_copy(recipe, copy)


def _print_or_copy(recipe: str, copy: Path | None) -> None:
    from gradatim.recipes.load import find_recipe

    content = find_recipe(recipe).read_bytes()
    if copy is None:
        typer.echo(content, nl=False)  # byte by byte, so that it can be redirected into a file
        return
    try:
        with copy.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise GradatimError(f"{str(copy)!r} exists already; choose another --copy or remove it") from None
    result_console().print(f"{copy}: run it with: gradatim run {copy}", highlight=False, markup=False, soft_wrap=True)


def _list_recipes() -> None:
    import yaml
    from rich.padding import Padding

    from gradatim.recipes import shipped_recipes
    from gradatim.recipes.listing import parts_in_words
    from gradatim.recipes.measured import measured_results

    console, measured = result_console(), measured_results()
    for name, path in shipped_recipes().items():
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        about = ", ".join([recipe.get("kind", "run"), *([recipe["paper"]] if "paper" in recipe else [])])
        console.print(f"[bold]{name}[/] [dim]({about})[/]", highlight=False)
        lines = [recipe.get("summary", ""), parts_in_words(recipe)]
        lines += [f"measured: {measured[name]}"] if name in measured else []
        for line in lines:
            if line:
                console.print(Padding(escape(line), (0, 0, 0, 4)), highlight=False)
    console.print("\nIn brackets stands the command that a recipe is for, such as gradatim run RECIPE, and the paper;")
    console.print("gradatim recipes RECIPE prints one, gradatim recipes --keys says what its keys mean.")


def _print_keys(path: str) -> None:
    from rich.padding import Padding

    from gradatim.recipes.reference import find_sections

    console = Console()
    for section in find_sections(path):
        console.print(f"[bold]{section.path or 'a recipe'}[/]", highlight=False)
        for key in section.keys:
            default = "required" if key.default is None else f"default: {key.default}"
            console.print(Padding(f"[cyan]{key.name}[/]: {escape(' '.join(key.meaning.split()))}", (0, 0, 0, 2)))
            values = escape(key.values.replace("`", ""))
            console.print(Padding(f"[dim]{values}; {escape(default)}[/]", (0, 0, 0, 6)), highlight=False)
        console.print()


def pretrain(
    recipe: RecipeArgument,
    output: Annotated[Path, typer.Option(help="The folder of the model; checkpoints go there too.")],
    set_: SetOption = None,
) -> None:
    """Train a small policy from scratch, or go on with one."""
    from gradatim.recipes import PretrainRecipe, load_as

    loaded = load_as(PretrainRecipe, recipe, set_ or ())
    from gradatim.training.from_scratch import pretrain
    from gradatim.training.saving import disk_errors

    with disk_errors(output):
        log = pretrain(loaded.task, loaded.task.tokenizer(), loaded.size, loaded.training, output)
    Console().print(f"{log['parameters']:,} parameters, {log['steps']:,} steps; saved to {output}", highlight=False)
