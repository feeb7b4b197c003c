"""``gradatim evaluate-scorer``: a step scorer on a benchmark, beside what anybody can have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from gradatim.cli.completion import complete_model
from gradatim.cli.output import progress_console, result_console
from gradatim.errors import GradatimError

if TYPE_CHECKING:
    from gradatim.evaluation.record_scoring import ScoreFile
    from gradatim.evaluation.step_records import StepRecord
    from gradatim.scorers.base import Scorer


class BenchmarkName(StrEnum):
    """The benchmarks by the names that the command line gives them."""

    PROCESS_BENCH = "processbench"
    PRM_BENCH = "prmbench"
    BEST_OF_N = "bestofn"
    MP_BENCH = "mpbench"


class LayoutName(StrEnum):
    """How a reward model reads a solution."""

    AUTO = "auto"
    OWN = "own"
    STEP_TOKEN = "step-token"
    STEP_TAG = "step-tag"
    DIALOGUE = "dialogue"
    SEPARATOR = "separator"
    VALUE_HEAD = "value-head"


class NumberFormat(StrEnum):
    """Of a model's weights."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class AggregateName(StrEnum):
    """How a solution's score is made from its steps'."""

    LAST = "last"
    MIN = "min"
    PRODUCT = "product"
    MEAN = "mean"


def evaluate_scorer(
    scorer: Annotated[
        str,
        typer.Argument(
            metavar="SCORER",
            autocompletion=complete_model,
            help="A process reward model: a folder, hub id or shipped:NAME.",
        ),
    ],
    benchmark: Annotated[
        BenchmarkName, typer.Option(metavar="NAME", help=f"What to measure: {', '.join(BenchmarkName)}.")
    ],
    data: Annotated[
        list[str],
        typer.Option(metavar="PATH_OR_HUB_ID", help="A file, a folder, a pattern or a hub id. May be repeated."),
    ],
    threshold: Annotated[
        str,
        typer.Option(help="Parts right from wrong steps; auto chooses it on ProcessBench's GSM8K subset."),
    ] = "0.5",
    aggregate: Annotated[
        AggregateName,
        typer.Option(
            metavar="NAME", help=f"How a solution's score is made from its steps': {', '.join(AggregateName)}."
        ),
    ] = AggregateName.LAST,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many questions of each part, drawn at random.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="For the report and the scores; runs/BENCHMARK-SCORER by default.")
    ] = None,
    layout: Annotated[
        LayoutName,
        typer.Option(
            metavar="LAYOUT",
            help=f"How the model reads a solution; auto tells it from the model. One of {', '.join(LayoutName)}.",
        ),
    ] = LayoutName.AUTO,
    dtype: Annotated[
        NumberFormat,
        typer.Option(metavar="FORMAT", help=f"The number format of the weights: {', '.join(NumberFormat)}."),
    ] = NumberFormat.FLOAT32,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of --limit, the random baseline and the intervals.")] = 0,
) -> None:
    """Measure a step scorer on a benchmark, or go on with a measurement that was stopped."""
    chosen_threshold = _threshold(threshold)
    from gradatim.cli.tables import print_sections
    from gradatim.evaluation.baselines import constant_scores
    from gradatim.evaluation.benchmarks.step_benchmarks import STEP_BENCHMARKS, Measurement, benchmark_report
    from gradatim.evaluation.step_records import sampled_questions

    measurement = Measurement(chosen_threshold, aggregate.value, seed)
    chosen = STEP_BENCHMARKS[benchmark.value]
    records = chosen.read(data)
    if limit is not None:
        records = sampled_questions(records, limit, seed)
    chosen.measure(records, constant_scores(records), measurement)  # what cannot be measured is refused at once
    name = Path(scorer.removeprefix("shipped:")).resolve().name
    folder = Path("runs") / f"{benchmark.value}-{name}" if output is None else output
    console = result_console()
    judge = ScorerChoice(scorer, layout.value, dtype.value, device)
    found = _score(records, judge, folder, progress_console())
    left_out = [record.id for record, each in zip(records, found, strict=True) if each is None]
    records = [record for record, each in zip(records, found, strict=True) if each is not None]
    scores = [each for each in found if each is not None]
    settings = {
        "scorer": scorer, "layout": layout.value, "dtype": dtype.value, "data": ", ".join(data),
        "records": len(records), "left out as too long": ", ".join(left_out) or "none",
        "threshold": threshold, "aggregate": aggregate.value,
        "limit": "none" if limit is None else limit, "seed": seed,
    }  # fmt: skip
    report = benchmark_report(chosen, records, name, scores, measurement, settings)
    report.write(folder)
    print_sections([report.section()], console)
    if left_out:
        console.print(f"{len(left_out):,} too long to be scored and left out: {', '.join(left_out)}", highlight=False)
    console.print(f"report and scores: {folder}", style="dim", highlight=False, soft_wrap=True)


def _threshold(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise GradatimError(f"the threshold {text!r} is no number; give one, or auto")
    return value


@dataclass(frozen=True, slots=True)
class ScorerChoice:
    """What the command line says of the scorer."""

    model: str
    layout: str
    dtype: Literal["float32", "bfloat16", "float16"]
    device: str

    def load(self) -> Scorer:
        from gradatim.models import resolve_model
        from gradatim.recipes.recipe import ModelOptions
        from gradatim.run.models import placement
        from gradatim.scorers.process_reward import ProcessRewardScorer

        options = ModelOptions(model=self.model, device=self.device, dtype=self.dtype)
        return ProcessRewardScorer.from_pretrained(resolve_model(self.model), layout=self.layout, **placement(options))

    def saved_scores(self, folder: Path) -> ScoreFile:
        """The scores that it gave before.

        Raises:
            GradatimError: if those in ``folder`` are not its own.
        """
        from gradatim.evaluation.record_scoring import ScoreFile, model_digest
        from gradatim.models import resolve_model

        return ScoreFile(
            folder / "scores.jsonl",
            self.model,
            model_digest=model_digest(resolve_model(self.model)),
            settings={"layout": self.layout, "dtype": self.dtype},
        )


def _score(records: list[StepRecord], scorer: ScorerChoice, folder: Path, console: Console) -> list[list[float] | None]:
    """Every record's step scores, from the output folder or from the model, which is loaded only if it is needed."""
    from rich.progress import Progress

    from gradatim.evaluation.record_scoring import score_records
    from gradatim.event_loop import run_to_end

    scores = scorer.saved_scores(folder)
    known = [scores.get(record) for record in records]
    if count := sum(each is not None for each in known):
        console.print(f"{count:,} of {len(records):,} solutions were scored before", highlight=False)
    if count == len(records):
        return known
    judge = scorer.load()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Scoring solutions", total=len(records))
        return run_to_end(score_records(records, judge, scores=scores, progress=lambda count: bar.advance(task, count)))
