"""``gradatim show``, ``gradatim export`` and ``gradatim import``: trees on the screen, as pictures, and as rows."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gradatim.cli.output import result_console
from gradatim.errors import GradatimError

if TYPE_CHECKING:
    from gradatim.store.trees import TreeStore
    from gradatim.supervision import Construction
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


class Pairs(StrEnum):
    """Which steps or solutions are compared, as recipes call them."""

    BEST_WORST = "best_worst"
    ALL = "all"
    FIRST_ERROR = "first_error"
    SOLUTIONS = "solutions"


_PUBLISHED = {format.value for format in ImportFormat}
_OF_LABELS = {format.value for format in ExportFormat} - {"preference", "prompt-completion", "omegaprm"}
"""Formats that say good or bad of a step; what OmegaPRM's rows have are values."""
_OF_NUMBERS = {"stepwise", "math-aps"}
"""Formats whose labels may be numbers."""

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
    value: Annotated[
        str | None,
        typer.Option(help="The score that says what a step is worth; by default value, or what was imported."),
    ] = None,
    hard: Annotated[bool, typer.Option("--hard", help="Good is a value above 0, not above 0.5.")] = False,
    soft: Annotated[
        bool, typer.Option("--soft", help="Labels are the values themselves (stepwise and math-aps).")
    ] = False,
    pairs: Annotated[
        Pairs | None,
        typer.Option(metavar="PAIRS", help=f"What preference compares: {', '.join(Pairs)}; by default best_worst."),
    ] = None,
    min_gap: Annotated[
        float, typer.Option(help="By how much the values of a pair of siblings differ at least.")
    ] = 0.25,
    skip_damaged: SkipDamagedOption = False,
) -> None:
    """Write trees as rows that other trainers read, or in the layout of a published data set."""
    from gradatim.store.export import write_jsonl
    from gradatim.supervision import unpaired_preference_rows

    _check_export(format, hard=hard, soft=soft, pairs=pairs)
    store = open_store(source, trees, skip_damaged=skip_damaged)
    if format.value in _PUBLISHED:
        if value is not None:
            _value_name(store, value)
        count = _write_published(
            store, output, format, value, soft=True if soft else False if hard else None, hard=hard
        )
        result_console().print(f"{output}: {count:,} rows from {len(store):,} trees", highlight=False)
        return
    forest = list(store)
    construction = _construction(format, pairs, forest, value, min_gap)
    rows: list[Any] = []
    for tree in forest:
        if format is ExportFormat.UNPAIRED:
            rows += unpaired_preference_rows(construction(tree), threshold=_threshold(hard))
        else:
            rows += construction.rows(construction(tree))
    write_jsonl(rows, output)
    result_console().print(f"{output}: {len(rows):,} rows from {len(forest):,} trees", highlight=False)


def _check_export(format: ExportFormat, *, hard: bool, soft: bool, pairs: Pairs | None) -> None:
    """Refuse options that say nothing in the format.

    Raises:
        GradatimError: if there is one.
    """
    if hard and soft:
        raise GradatimError("--hard and --soft are two kinds of labels; choose one of them")
    if hard and format.value not in _OF_LABELS:
        raise GradatimError(f"--hard is about labels, which rows of {format.value} do not have; leave it out")
    if soft and format.value not in _OF_NUMBERS:
        raise GradatimError(f"rows of {format.value} hold no numbers as labels; use stepwise or math-aps for --soft")
    if pairs is not None and format is not ExportFormat.PREFERENCE:
        raise GradatimError(f"--pairs is about preference, not about {format.value}; leave it out")


def _write_published(
    store: TreeStore, output: Path, format: ExportFormat, value: str | None, *, soft: bool | None, hard: bool
) -> int:
    """Write trees in a published format; returns the number of rows."""
    from gradatim.store.published import MathAps, PublishedFormat, StepwiseSupervision, write_published

    with_numbers: dict[str, PublishedFormat] = {
        "stepwise": StepwiseSupervision(soft=soft), "math-aps": MathAps(soft=soft),
    }  # fmt: skip
    layout = with_numbers.get(format.value, format.value)
    return write_published(store, output, layout, value=value, threshold=_threshold(hard))


def _threshold(hard: bool) -> float:
    """A step is good if its value is above this."""
    return 0.0 if hard else 0.5


def _construction(
    format: ExportFormat, pairs: Pairs | None, forest: list[Tree], value: str | None, min_gap: float
) -> Construction:
    """What the rows of a format, and the pairs in them, are made by."""
    from gradatim.supervision import FirstErrorPairs, RightSolutions, SiblingPairs, SolutionPairs, StepLabels

    if format is ExportFormat.PROMPT_COMPLETION:
        return RightSolutions()
    if pairs is Pairs.SOLUTIONS:
        return SolutionPairs()
    name = _value_name(forest, value)
    if format is ExportFormat.UNPAIRED:
        return StepLabels(value=name)
    if pairs is Pairs.FIRST_ERROR:
        return FirstErrorPairs(value=name)
    return SiblingPairs(value=name, min_gap=min_gap, pairing="all" if pairs is Pairs.ALL else "best_worst")


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
    return {bool(leaf.correct) for leaf in tree.solutions()} == {True, False}


def _value_name(forest: Iterable[Tree], value: str | None) -> str:
    """The score that says what a step is worth: the one that is named, else ``value``, else ``label``.

    Raises:
        GradatimError: if no step has it.
    """
    names = sorted({name for tree in forest for node in tree.nodes for name in node.scores})
    wanted = ("value", "label") if value is None else (value,)
    found = next((name for name in wanted if name in names), None)
    if found is None:
        raise GradatimError(
            f"no step has the score {wanted[0]!r}; "
            + (f"choose --value from {', '.join(names)}" if names else "these trees were not scored")
        )
    return found
