"""``gradatim train-scorer``: a process reward model from rows of labelled steps."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from gradatim.cli.output import progress_console, result_console
from gradatim.cli.parts import described
from gradatim.cli.trees import FormatOption, FormatSetOption

if TYPE_CHECKING:
    from gradatim.run.scorer_from_rows import TrainedScorer


def train_scorer(
    rows: Annotated[
        list[str],
        typer.Argument(metavar="ROWS", help="Files, folders, patterns or hub ids of rows; a run folder."),
    ],
    init: Annotated[str, typer.Option(help="The model to start from: a hub id, a folder or shipped:NAME.")],
    output: Annotated[Path | None, typer.Option(help="The model's folder; runs/scorer-ROWS by default.")] = None,
    format: FormatOption = "auto",
    set_: FormatSetOption = None,
    split: Annotated[str, typer.Option(help="Which split of a hub data set.")] = "train",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many trees.")] = None,
    skip_malformed: Annotated[bool, typer.Option("--skip-malformed", help="Pass over malformed rows.")] = False,
    trees: Annotated[str, typer.Option(help="Which trees of a run folder.")] = "round-1",
    value: Annotated[str | None, typer.Option(help="The score of trees to learn; label or value by default.")] = None,
    labels: Annotated[Literal["soft", "hard"], typer.Option(help="As they are, or 0 and 1.")] = "soft",
    threshold: Annotated[float, typer.Option(help="Hard labels are 1 above this.")] = 0.0,
    validation: Annotated[float, typer.Option(help="Share of questions held out; 0 for none.")] = 0.05,
    epochs: Annotated[float, typer.Option(help="Passes over the labels.")] = 2.0,
    learning_rate: Annotated[float | None, typer.Option(help="By the model's size if it is not given.")] = None,
    tokens_per_batch: Annotated[int, typer.Option("--batch-tokens", help="Tokens in one forward pass.")] = 4096,
    gradient_accumulation: Annotated[int, typer.Option("--accumulate", help="Forward passes per update.")] = 1,
    lora: Annotated[bool, typer.Option("--lora", help="Train adapters, merged in the end.")] = False,
    bf16: Annotated[bool | None, typer.Option(help="Mixed precision; on where an accelerator can.")] = None,
    chat: Annotated[bool | None, typer.Option(help="Problems as conversations; if the model has a template.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the new head, the order and what is held out.")] = 0,
    evaluate_every: Annotated[int | None, typer.Option(help="Updates; ten times in all by default.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Updates; as often as is measured by default.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many measurements without a gain.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete an earlier training first.")] = False,
) -> None:
    """Train a process reward model on labelled steps, or go on with a training that was stopped."""
    from gradatim.run.labelled_rows import RowOptions
    from gradatim.run.progress import Progress
    from gradatim.run.scorer_from_rows import ScorerOptions, train_scorer_from_rows

    result = train_scorer_from_rows(
        rows,
        init,
        Path("runs") / f"scorer-{_name(rows[0])}" if output is None else output,
        rows=RowOptions(
            format=described(format, set_),
            split=split,
            limit=limit,
            malformed="skip" if skip_malformed else "refuse",
            trees=trees,
            value=value,
        ),
        options=ScorerOptions(
            labels=labels,
            threshold=threshold,
            validation=validation,
            epochs=epochs,
            learning_rate=learning_rate,
            tokens_per_batch=tokens_per_batch,
            gradient_accumulation=gradient_accumulation,
            lora=lora,
            bf16=bf16,
            chat=chat,
            device=device,
            seed=seed,
            evaluate_every=evaluate_every,
            save_every=save_every,
            patience=patience,
        ),
        fresh=fresh,
        progress=Progress(progress_console()),
    )
    print_trained(result, result_console())


def _name(source: str) -> str:
    """A folder's name for what was learned from ``source``, which may be a pattern."""
    stem = Path(source).stem
    return "".join(sign if sign.isalnum() or sign in "-_." else "" for sign in stem).strip("-_.") or "rows"


def print_trained(result: TrainedScorer, console: Console) -> None:
    """Show what was measured of a trained scorer, and the commands to go on with."""
    from rich.table import Table

    from gradatim.evaluation.wording import number_with_interval

    if result.before:
        console.print(f"trained before: {result.summary}", highlight=False, soft_wrap=True)
    best, constant = result.trained, result.constant
    if best is not None and constant is not None:
        how = "few questions, no intervals" if best.loss.few else "95 % intervals"
        questions = "1 question" if best.questions == 1 else f"{best.questions:,} questions"
        console.print(f"{best.steps:,} held-out steps of {questions}; {how}", highlight=False)
        table = Table()
        for column in ("", "trained", "one score for all"):
            table.add_column(column, justify="right" if column else "left")
        table.add_row("loss (lower is better)", number_with_interval(best.loss), number_with_interval(constant.loss))
        table.add_row("AUC", number_with_interval(best.auc), number_with_interval(constant.auc))
        table.add_row("accuracy", number_with_interval(best.accuracy), number_with_interval(constant.accuracy))
        table.add_row(
            "first-error F1", number_with_interval(best.first_error_f1), number_with_interval(constant.first_error_f1)
        )
        console.print(table)
        if best.loss.value >= constant.loss.value:
            console.print(
                "The model is no better than one score for all steps: it needs more rows, more epochs, another "
                "learning rate or a stronger model to start from.",
                style="yellow",
                highlight=False,
            )
    threshold = None
    if best is not None and best.threshold is not None:
        console.print(f"a step is best called right from a score of {best.threshold:.3f}", highlight=False)
    if best is not None and best.first_error_threshold is not None:
        threshold = f"{best.first_error_threshold:.3f}"
        console.print(f"first errors are best found below a score of {threshold}", highlight=False)
    console.print(f"model: {result.folder}\nnext:", highlight=False, soft_wrap=True)
    folder = shlex.quote(str(result.folder))
    chosen = "" if threshold is None else f" --set threshold={threshold}"
    console.print(
        f"  gradatim evaluate-scorer {folder} --benchmark process_bench --data Qwen/ProcessBench{chosen}\n"
        f"  gradatim run RECIPE --set models.scorer.model={folder} --set evaluation.scorer=process_reward",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
