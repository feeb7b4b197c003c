"""The benchmarks of step scoring by name: how each is read and measured, and the report that they share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from gradatim.errors import GradatimError
from gradatim.evaluation.baselines import constant_scores, length_scores, random_scores
from gradatim.evaluation.benchmarks.benchmark_rows import Source
from gradatim.evaluation.benchmarks.mp_bench import mp_bench, read_mp_bench
from gradatim.evaluation.benchmarks.prmbench import prmbench, read_prmbench
from gradatim.evaluation.benchmarks.process_bench import process_bench, read_process_bench
from gradatim.evaluation.best_of_n import best_of_n_selection, read_best_of_n
from gradatim.evaluation.page import Section, Table, markdown_page
from gradatim.evaluation.step_records import StepRecord
from gradatim.evaluation.wording import NOT_MEASURED
from gradatim.search.selection import Aggregate
from gradatim.store.files import write_json, write_text

Scores = Sequence[Sequence[float]]


class BenchmarkResult(Protocol):
    """What a benchmark measured of one scorer."""

    def figures(self) -> dict[str, float | None]:
        """The rows of its table: shares in percent, ``None`` where there is nothing to measure."""
        ...

    def to_json(self) -> dict[str, Any]:
        """All numbers, as shares."""
        ...


@dataclass(frozen=True, slots=True)
class Measurement:
    """How scores become verdicts; a benchmark looks at what it has a use for.

    Attributes:
        threshold: parts right from wrong steps; ``"auto"`` where the benchmark itself says how to choose it.
        aggregate: how a solution's score is made from its steps'.
        seed: of random scores and of intervals.
    """

    threshold: float | Literal["auto"] = 0.5
    aggregate: Aggregate = "last"
    seed: int = 0

    def fixed_threshold(self) -> float:
        """The threshold, for benchmarks that do not choose one.

        Raises:
            GradatimError: if it is ``"auto"``.
        """
        if self.threshold == "auto":
            raise GradatimError(
                "this benchmark has no part to choose a threshold on; give a number as threshold",
                options=("threshold",),
            )
        return self.threshold


@dataclass(frozen=True, slots=True)
class StepBenchmark:
    """One benchmark.

    Attributes:
        title: heads its report.
        read: makes records of files, folders or hub ids.
        measure: makes a result of records and their step scores.
    """

    title: str
    read: Callable[[Sequence[Source]], list[StepRecord]]
    measure: Callable[[Sequence[StepRecord], Scores, Measurement], BenchmarkResult]


STEP_BENCHMARKS = {
    "processbench": StepBenchmark(
        "ProcessBench",
        read_process_bench,
        lambda records, scores, how: process_bench(records, scores, how.threshold),
    ),
    "prmbench": StepBenchmark(
        "PRMBench",
        read_prmbench,
        lambda records, scores, how: prmbench(records, scores, how.fixed_threshold()),
    ),
    "bestofn": StepBenchmark(
        "Best-of-n selection",
        read_best_of_n,
        lambda records, scores, how: best_of_n_selection(records, scores, how.aggregate, seed=how.seed),
    ),
    "mpbench": StepBenchmark(
        "MPBench",
        read_mp_bench,
        lambda records, scores, how: mp_bench(records, scores, how.fixed_threshold(), how.aggregate),
    ),
}


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """A benchmark's results for a scorer and for the baselines.

    Attributes:
        title: the benchmark.
        settings: what the numbers depend on.
        results: by scorer.
    """

    title: str
    settings: Mapping[str, Any]
    results: Mapping[str, BenchmarkResult]

    def section(self) -> Section:
        """The table: figures down, scorers across."""
        columns = [result.figures() for result in self.results.values()]
        names = list(dict.fromkeys(name for column in columns for name in column))
        rows = [[name, *(_cell(name, column.get(name)) for column in columns)] for name in names]
        return Section(self.title, [Table(["", *self.results], rows, "Shares in percent.")])

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``report.json`` and ``report.md`` into ``folder``, each whole or not at all.

        Raises:
            GradatimError: if the disk is full or the folder cannot be written.
        """
        results = {name: result.to_json() for name, result in self.results.items()}
        value = {"title": self.title, "settings": dict(self.settings), "results": results}
        write_json(Path(folder) / "report.json", value)
        settings = [[name, str(value)] for name, value in self.settings.items()]
        sections = [replace(self.section(), title=""), Section("Settings", [Table(["setting", "value"], settings)])]
        write_text(Path(folder) / "report.md", markdown_page(self.title, sections))


def benchmark_report(
    benchmark: StepBenchmark,
    records: Sequence[StepRecord],
    scorer: str,
    scores: Scores,
    measurement: Measurement,
    settings: Mapping[str, Any],
) -> BenchmarkReport:
    """Measure a scorer's step scores, and the baselines, on the same records.

    Args:
        benchmark: one of :data:`STEP_BENCHMARKS`.
        records: what the benchmark read.
        scorer: heads the scorer's column.
        scores: for each record the scores of its steps.
        measurement: how scores become verdicts.
        settings: further settings that the report is to name.

    Raises:
        GradatimError: if the benchmark cannot be measured so.
    """
    all_scores = {
        scorer: scores,
        "random scores": random_scores(records, measurement.seed),
        "constant scores": constant_scores(records),
        "length scores": length_scores(records),
    }
    return BenchmarkReport(
        benchmark.title,
        settings,
        {name: benchmark.measure(records, values, measurement) for name, values in all_scores.items()},
    )


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    if name == "threshold":
        return f"{value:.4g}" if math.isfinite(value) else "above all scores"
    return f"{value:.1f}"
