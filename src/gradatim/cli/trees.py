"""``gradatim show``, ``gradatim export`` and ``gradatim import``: trees on the screen, as pictures, and as rows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gradatim.cli.output import result_console
from gradatim.errors import GradatimError

if TYPE_CHECKING:
    from gradatim.store.trees import TreeStore
    from gradatim.tree import Tree


class ExportFormat(StrEnum):
    """The row formats by the names that the command line gives them."""

    STEPWISE = "stepwise"
    PREFERENCE = "preference"
    UNPAIRED = "unpaired"
    PROMPT_COMPLETION = "prompt-completion"
    PRM800K = "prm800k"
    MATH_SHEPHERD = "math-shepherd"
    MATH_APS = "math-aps"
    OMEGAPRM = "omegaprm"
    RLHFLOW = "rlhflow"


class ImportFormat(StrEnum):
    """The published formats by their names."""

    AUTO = "auto"
    PRM800K = "prm800k"
    MATH_SHEPHERD = "math-shepherd"
    MATH_APS = "math-aps"
    OMEGAPRM = "omegaprm"
    STEPWISE = "stepwise"
    RLHFLOW = "rlhflow"


class Neutral(StrEnum):
    """What a step of PRM800K with rating 0 is."""

    GOOD = "good"
    BAD = "bad"
    DROP = "drop"


_PUBLISHED = {
    ExportFormat.PRM800K,
    ExportFormat.MATH_SHEPHERD,
    ExportFormat.MATH_APS,
    ExportFormat.OMEGAPRM,
    ExportFormat.RLHFLOW,
}

SourceArgument = Annotated[Path, typer.Argument(metavar="RUN_OR_TREES", help="A run folder, or a file of trees.")]
SkipDamagedOption = Annotated[bool, typer.Option("--skip-damaged", help="Pass over lines that are damaged.")]
TreesOption = Annotated[str, typer.Option(help="Which trees of a run folder, e.g. evaluate-base.")]


def show(
    source: SourceArgument,
    problem: Annotated[str | None, typer.Option(help="The problem's id; by default the first that was solved.")] = None,
    trees: TreesOption = "round-1",
    by: Annotated[str | None, typer.Option(help="The score to show.")] = None,
    limit: Annotated[int, typer.Option(help="Show at most so many steps.")] = 60,
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
    console.print(render(tree, by=by, limit=limit))
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
        ExportFormat, typer.Option(metavar="FORMAT", help=f"The row format: {', '.join(ExportFormat)}.")
    ] = ExportFormat.STEPWISE,
    trees: TreesOption = "round-1",
    value: Annotated[str, typer.Option(help="The score that says what a step is worth.")] = "value",
    hard: Annotated[bool, typer.Option("--hard", help="Labels 0 and 1 (value above 0) instead of values.")] = False,
    min_gap: Annotated[float, typer.Option(help="By how much the values of a preference pair differ at least.")] = 0.25,
    skip_damaged: SkipDamagedOption = False,
) -> None:
    """Write trees as rows that other trainers read, or in the layout of a published data set."""
    from gradatim import supervision
    from gradatim.store.export import write_jsonl

    store = open_store(source, trees, skip_damaged=skip_damaged)
    if format in _PUBLISHED:
        from gradatim.store.published import write_published

        count = write_published(store, output, format.value, value=value, threshold=0.0 if hard else 0.5)
        result_console().print(f"{output}: {count:,} rows from {len(store):,} trees", highlight=False)
        return
    forest = list(store)
    if format is not ExportFormat.PROMPT_COMPLETION:
        _check_value(forest, value)
    rows: list[Any] = []
    for tree in forest:
        if format is ExportFormat.PROMPT_COMPLETION:
            rows += supervision.prompt_completion_rows(supervision.right_solutions(tree))
        elif format is ExportFormat.PREFERENCE:
            rows += supervision.preference_rows(
                supervision.sibling_pairs(tree, value=value, min_gap=min_gap, mode="best_worst")
            )
        else:
            labels = supervision.step_labels(tree, value=value, kind="hard" if hard else "soft")
            if format is ExportFormat.UNPAIRED:
                rows += supervision.unpaired_preference_rows(labels, threshold=0.0 if not hard else 0.5)
            else:
                rows += supervision.stepwise_rows(labels)
    write_jsonl(rows, output)
    result_console().print(f"{output}: {len(rows):,} rows from {len(forest):,} trees", highlight=False)


def import_trees(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A file or folder of rows, or a hub data set.")],
    output: Annotated[Path, typer.Option(help="The file of trees to write.")],
    format: Annotated[
        ImportFormat,
        typer.Option(
            metavar="FORMAT",
            help=f"The published format; auto looks at the first row. One of {', '.join(ImportFormat)}.",
        ),
    ] = ImportFormat.AUTO,
    split: Annotated[str, typer.Option(help="Which split of a hub data set.")] = "train",
    limit: Annotated[int | None, typer.Option(help="At most so many trees.")] = None,
    merge: Annotated[
        bool, typer.Option("--merge/--separate", help="One tree for all rows of a question, or one for each row.")
    ] = True,
    neutral: Annotated[
        Neutral | None, typer.Option(help="What rating 0 of PRM800K means; good if it is not said.")
    ] = None,
    skip_malformed: Annotated[bool, typer.Option("--skip-malformed", help="Pass over malformed rows.")] = False,
) -> None:
    """Read a published data set of step labels as trees."""
    from gradatim.store.files import atomic_path
    from gradatim.store.published import Prm800k, read_published
    from gradatim.store.trees import TreeStore

    if output.exists():
        raise GradatimError(f"{str(output)!r} exists already; choose another --output or remove it")
    if neutral is not None and format not in {ImportFormat.AUTO, ImportFormat.PRM800K}:
        raise GradatimError(f"--neutral is about ratings of prm800k, not about {format.value}; leave it out")
    forest = read_published(
        source,
        format.value if neutral is None else Prm800k(neutral.value),
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
    from gradatim.store.trees import TreeStore
    from gradatim.suggestions import suggestion

    path = source
    if source.is_dir():
        stored = sorted(file.stem for file in (source / "trees").glob("*.jsonl"))
        if not stored:
            raise GradatimError(f"the folder {str(source)!r} has no trees; name a run folder or a file of trees")
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
    return {(leaf.reward or 0.0) > 0.5 for leaf in tree.solutions()} == {True, False}


def _check_value(forest: list[Tree], value: str) -> None:
    names = sorted({name for tree in forest for node in tree.nodes for name in node.scores})
    if value not in names:
        raise GradatimError(
            f"no step has the score {value!r}; "
            + (f"choose --value from {', '.join(names)}" if names else "these trees were not scored")
        )
