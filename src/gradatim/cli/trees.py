"""``gradatim show``, ``gradatim export`` and ``gradatim import``: trees on the screen, as pictures, and as rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gradatim.cli.completion import complete_construction, complete_format
from gradatim.cli.output import result_console
from gradatim.cli.parts import described
from gradatim.errors import GradatimError

if TYPE_CHECKING:
    from gradatim.store.trees import TreeStore
    from gradatim.tree import Tree


SourceArgument = Annotated[Path, typer.Argument(metavar="RUN_OR_TREES", help="A run folder, or a file of trees.")]
SkipDamagedOption = Annotated[bool, typer.Option("--skip-damaged", help="Pass over lines that are damaged.")]
FormatOption = Annotated[
    str,
    typer.Option(
        metavar="FORMAT",
        autocompletion=complete_format,
        help="The published format (gradatim parts store/published); auto looks at the first row.",
    ),
]
FormatSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="OPTION=VALUE", help="An option of the format, e.g. neutral=drop of prm800k. May be repeated."
    ),
]
TreesOption = Annotated[str, typer.Option(help="Which trees of a run folder, e.g. evaluate-base.")]


def show(
    source: SourceArgument,
    problem: Annotated[str | None, typer.Option(help="The problem's id; by default the first that was solved.")] = None,
    trees: TreesOption = "round-1",
    by: Annotated[str | None, typer.Option(help="The score to show.")] = None,
    limit: Annotated[int, typer.Option(help="Show at most so many steps.")] = 60,
    why: Annotated[bool, typer.Option("--why", help="Say why the search went on from a step, or did not.")] = False,
    figure: Annotated[Path | None, typer.Option(help="Draw the tree into this file instead (.png, .svg).")] = None,
    skip_damaged: SkipDamagedOption = False,
) -> None:
    """Show one problem's tree."""
    store = open_store(source, trees, skip_damaged=skip_damaged)
    tree = _choose(store, problem)
    if figure is not None:
        from gradatim.view.figure import draw_tree

        draw_tree(tree, figure, by=by, limit=limit)
        result_console().print(f"{figure}: problem {tree.problem.id}", highlight=False)
        return
    from gradatim.view import render

    console = Console()
    console.print(render(tree, by=by, limit=limit, why=why))
    console.print(
        f"problem {tree.problem.id}, one of {len(store):,} in {store.path}: {len(tree):,} nodes, "
        f"{tree.budget.total:,} tokens",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


def export(
    source: SourceArgument,
    output: Annotated[Path, typer.Option(help="The JSON lines file to write.")],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            autocompletion=complete_format,
            help="A layout of published data (gradatim parts store/published); by default stepwise.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_construction,
            help="Write what a construction makes of the trees instead (gradatim parts supervision).",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="OPTION=VALUE", help="An option of either, e.g. value=label, threshold=0. May be repeated."
        ),
    ] = None,
    trees: TreesOption = "round-1",
    skip_damaged: SkipDamagedOption = False,
) -> None:
    """Write trees as rows that other trainers read, or in the layout of a published data set; and where they are from,
    in a file beside them."""
    from gradatim.part import make
    from gradatim.store.provenance import Seen, write_provenance

    if format is not None and data is not None:
        raise GradatimError("--format is a layout of whole trees, --data what is learned from them; leave one out")
    store = open_store(source, trees, skip_damaged=skip_damaged)
    seen = Seen()
    if data is None:
        from gradatim.store.published import write_published

        made_by = make("store/published", described(format or "stepwise", set_))
        count = write_published(seen.through(store), output, made_by)
    else:
        from gradatim.store.export import write_jsonl

        made_by = make("supervision", described(data, set_))
        _check_value(store, getattr(made_by, "value", None))
        rows = [row for tree in seen.through(store) for row in made_by.rows(made_by(tree))]
        write_jsonl(rows, output)
        count = len(rows)
    write_provenance(output, count, made_by, store.path, seen)
    result_console().print(f"{output}: {count:,} rows from {len(store):,} trees", highlight=False)


def import_trees(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A file or folder of rows, or a hub data set.")],
    output: Annotated[Path, typer.Option(help="The file of trees to write.")],
    format: FormatOption = "auto",
    set_: FormatSetOption = None,
    split: Annotated[str, typer.Option(help="Which split of a hub data set.")] = "train",
    limit: Annotated[int | None, typer.Option(help="At most so many trees.")] = None,
    merge: Annotated[
        bool, typer.Option("--merge/--separate", help="One tree for all rows of a question, or one for each row.")
    ] = True,
    skip_malformed: Annotated[bool, typer.Option("--skip-malformed", help="Pass over malformed rows.")] = False,
) -> None:
    """Read a published data set of step labels, preferences or completions as trees."""
    from gradatim.store.files import atomic_path
    from gradatim.store.published import read_published
    from gradatim.store.trees import TreeStore

    if output.exists():
        raise GradatimError(f"{str(output)!r} exists already; choose another --output or remove it")
    forest = read_published(
        source,
        described(format, set_),
        split=split,
        merge=merge,
        limit=limit,
        malformed="skip" if skip_malformed else "refuse",
    )
    trees = steps = 0
    with atomic_path(output) as partial, TreeStore(partial) as store:
        for tree in forest:
            store.append(tree)
            trees, steps = trees + 1, steps + len(tree) - 1
    result_console().print(f"{output}: {trees:,} trees with {steps:,} steps", highlight=False)


def open_store(source: Path, name: str, *, skip_damaged: bool = False) -> TreeStore:
    """The store at ``source``, or the one of that name in a run folder.

    Raises:
        GradatimError: if there is none, or it holds no trees.
    """
    from gradatim.store.trees import TreeStore, meant_store
    from gradatim.suggestions import suggestion

    path = source
    if source.is_dir():
        stored = sorted(file.stem for file in (source / "trees").glob("*.jsonl"))
        if not stored:
            raise GradatimError(f"the folder {str(source)!r} has no trees; name a run folder or a file of trees")
        name = meant_store(name, stored)
        if name not in stored:
            raise GradatimError(f"{str(source)!r} has no trees called {name!r}; {suggestion(name, stored)}")
        path = source / "trees" / f"{name}.jsonl"
    elif not source.is_file():
        raise GradatimError(f"there is no run folder or file {str(source)!r}; check the path")
    store = TreeStore(path, damaged="skip" if skip_damaged else "refuse")
    if not len(store):
        empty = "is empty" if path.stat().st_size == 0 else "holds no whole tree"
        raise GradatimError(f"{str(path)!r} {empty}; name a file that 'gradatim run' wrote")
    return store


def _choose(store: TreeStore, problem: str | None) -> Tree:
    """The tree of a problem; without one, the first with right and wrong solutions, or the first of all."""
    if problem is None:
        first = next(iter(store))
        return next((tree for tree in store if _telling(tree)), first)
    tree = store.get(problem)
    if tree is None:
        from gradatim.suggestions import suggestion

        raise GradatimError(f"there is no tree of problem {problem!r}; {suggestion(problem, store.ids()[:20])}")
    return tree


def _telling(tree: Tree) -> bool:
    return {bool(leaf.correct) for leaf in tree.solutions()} == {True, False}


def _check_value(forest: TreeStore, value: str | None) -> None:
    """Refuse a score that no step has.

    Raises:
        GradatimError: if it is not ``None`` and none has it.
    """
    names = {name for tree in forest for node in tree.nodes for name in node.scores}
    if value is not None and value not in names:
        known = f"choose --set value= from {', '.join(sorted(names))}" if names else "these trees were not scored"
        raise GradatimError(f"no step has the score {value!r}; {known}")
