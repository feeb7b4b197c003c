"""``gradatim evaluate-scorer``: a step scorer on a benchmark, beside what anybody can have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gradatim.cli.completion import complete_benchmark, complete_model
from gradatim.cli.output import progress_console, result_console
from gradatim.cli.parts import described

if TYPE_CHECKING:
    from gradatim.evaluation.record_scoring import ScoreFile
    from gradatim.evaluation.step_records import StepRecord
    from gradatim.recipes.recipe import ModelOptions
    from gradatim.scorers.base import Scorer


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
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_benchmark,
            help="What to measure: a benchmark (gradatim parts evaluation/benchmarks).",
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(metavar="PATH_OR_HUB_ID", help="A file, a folder, a pattern or a hub id. May be repeated."),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="OPTION=VALUE", help="An option of the benchmark, e.g. threshold=auto. May be repeated."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="For the report and the scores; runs/BENCHMARK-SCORER by default.")
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            metavar="LAYOUT",
            help="How the model reads a solution, e.g. separator; auto tells it from the model.",
        ),
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(metavar="FORMAT", help="The number format of the weights: float32, bfloat16 or float16.")
    ] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
) -> None:
    """Measure a step scorer on a benchmark, or go on with a measurement that was stopped."""
    from gradatim.cli.tables import print_sections
    from gradatim.evaluation.baselines import constant_scores
    from gradatim.evaluation.benchmarks.base import BenchmarkReport
    from gradatim.part import content_of, make

    chosen = make("evaluation/benchmarks", described(benchmark, set_, data=data))
    judge = ScorerChoice.of(scorer, layout, dtype, device)
    records = chosen.records()
    chosen.measure(records, constant_scores(records))  # what cannot be measured is refused at once
    name = Path(scorer.removeprefix("shipped:")).resolve().name
    folder = Path("runs") / f"{benchmark.rpartition(':')[2]}-{name}" if output is None else output
    console = result_console()
    found = _score(records, judge, folder, progress_console())
    left_out = [record.id for record, each in zip(records, found, strict=True) if each is None]
    records = [record for record, each in zip(records, found, strict=True) if each is not None]
    settings = {
        "scorer": scorer, "layout": layout, "dtype": dtype,
        **{f"benchmark {key}" if key == "name" else key: value for key, value in content_of(chosen).items()},
        "records": len(records), "left out as too long": ", ".join(left_out) or "none",
    }  # fmt: skip
    results = chosen.report(records, name, [each for each in found if each is not None])
    report = BenchmarkReport(chosen.title, settings, results)
    report.write(folder)
    print_sections([report.section()], console)
    if left_out:
        console.print(f"{len(left_out):,} too long to be scored and left out: {', '.join(left_out)}", highlight=False)
    console.print(f"report and scores: {folder}", style="dim", highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class ScorerChoice:
    """What the command line says of the scorer."""

    layout: str
    options: ModelOptions

    @classmethod
    def of(cls, model: str, layout: str, dtype: str, device: str) -> ScorerChoice:
        """Check what was said.

        Raises:
            GradatimError: if there is no such layout or number format.
        """
        from pydantic import ValidationError

        from gradatim.errors import GradatimError
        from gradatim.part import make
        from gradatim.recipes.explain import explain
        from gradatim.recipes.recipe import ModelOptions

        make("scorers", {"name": "process_reward", "layout": layout})
        try:
            options = ModelOptions.model_validate({"model": model, "dtype": dtype, "device": device})
        except ValidationError as error:
            raise GradatimError(explain(error, ModelOptions)) from error
        return cls(layout, options)

    def load(self) -> Scorer:
        from gradatim.models import resolve_model
        from gradatim.run.models import placement
        from gradatim.scorers.process_reward import ProcessRewardScorer

        path = resolve_model(self.options.model)
        return ProcessRewardScorer.from_pretrained(path, layout=self.layout, **placement(self.options))

    def saved_scores(self, folder: Path) -> ScoreFile:
        """The scores that it gave before.

        Raises:
            GradatimError: if those in ``folder`` are not its own.
        """
        from gradatim.evaluation.record_scoring import ScoreFile, model_digest
        from gradatim.models import resolve_model

        return ScoreFile(
            folder / "scores.jsonl",
            self.options.model,
            model_digest=model_digest(resolve_model(self.options.model)),
            settings={"layout": self.layout, "dtype": self.options.dtype},
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
