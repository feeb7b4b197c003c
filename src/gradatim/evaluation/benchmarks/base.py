"""What a benchmark of step scorers is: records whose steps are scored, and what it makes of the scores."""

from __future__ import annotations

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import FiniteFloat, PositiveInt

from gradatim.errors import GradatimError
from gradatim.evaluation.baselines import constant_scores, fewer_steps_scores, length_scores, random_scores
from gradatim.evaluation.benchmarks.benchmark_rows import Row, read_rows
from gradatim.evaluation.page import Section, Table, markdown_page
from gradatim.evaluation.step_records import StepRecord, check_scores, sampled_questions
from gradatim.evaluation.wording import NOT_MEASURED
from gradatim.part import options
from gradatim.store.files import write_json, write_text

Scores = Sequence[Sequence[float]]
Sources = str | Path | tuple[str | Path, ...]
"""Files, folders, patterns of file names or hub ids; see :func:`gradatim.evaluation.benchmarks.benchmark_rows
.read_rows`."""

AREA_RESAMPLES = 200
"""Of the intervals of areas under curves, for each of which all scores are sorted anew."""

_LINE_BREAKS = re.compile(r"\s*\n\s*")


class BenchmarkResult(Protocol):
    """What a benchmark measured of one scorer."""

    def figures(self) -> dict[str, float | None]:
        """The rows of its table: shares in percent, ``None`` where there is nothing to measure."""
        ...

    def to_json(self) -> dict[str, Any]:
        """All numbers, as shares."""
        ...


@options
class StepBenchmark(ABC):
    """A benchmark's data and options; a subclass is a part (:func:`gradatim.part.part`) in a file of its own."""

    title: ClassVar[str]
    """Heads its report."""

    data: Sources
    """Files, folders, patterns of file names or hub ids."""
    split: str | None = None
    """Only this split of a hub data set, or the file of this name in a folder."""
    limit: PositiveInt | None = None
    """Only so many questions of each part, drawn at random; `null` for all."""
    seed: int = 0
    """Of that, of the random baseline and of the intervals."""
    prompt: str | None = None
    """How a question is put to a model that reads plain text, with `{question}` in its place; `null` for the question
    and a line's end."""
    lines: bool = False
    """Write each step on one line with its line break, and no end token behind the last one, for models that were
    trained on such text."""

    @abstractmethod
    def read(self, rows: Sequence[Row]) -> list[StepRecord]:
        """The records of a benchmark's rows.

        Raises:
            GradatimError: if a row lacks a field, or it has a value that the benchmark does not know.
        """

    @abstractmethod
    def measure(self, records: Sequence[StepRecord], scores: Scores) -> BenchmarkResult:
        """What the scores of the records' steps are worth.

        Args:
            records: of :meth:`records`; some may be missing, which were too long to be scored.
            scores: for each record the scores of its steps.

        Raises:
            GradatimError: if a step has no score, or the benchmark cannot be measured so.
        """

    def records(self) -> list[StepRecord]:
        """What is to be scored.

        Raises:
            GradatimError: if the data cannot be read or is not in the benchmark's layout.
        """
        found = self._records_of(self.data)
        return found if self.limit is None else sampled_questions(found, self.limit, self.seed)

    def report(self, records: Sequence[StepRecord], scorer: str, scores: Scores) -> dict[str, BenchmarkResult]:
        """What the scores are worth, beside scores that anybody can have, by their names."""
        return {
            scorer: self.measure(records, scores),
            "random scores": self.measure(records, random_scores(records, self.seed)),
            "constant scores": self.measure(records, constant_scores(records)),
            "length scores": self.measure(records, length_scores(records)),
            "fewer steps": self.measure(records, fewer_steps_scores(records)),
        }

    def _records_of(self, sources: Sources) -> list[StepRecord]:
        listed = sources if isinstance(sources, tuple) else (sources,)
        rows = [row for row in read_rows(listed) if self.split in (None, row.part)]
        if not rows:
            raise GradatimError(
                f"there is no split or file {self.split!r} in {', '.join(map(str, listed))}; name one that is"
            )
        return [self._put(record) for record in self.read(rows)]

    def _put(self, record: StepRecord) -> StepRecord:
        """A record as a model is to read it."""
        if self.prompt is not None:
            record = replace(record, prompt=self.prompt.replace("{question}", record.problem))
        if self.lines:
            steps = tuple(_LINE_BREAKS.sub(" ", step.strip()) + "\n" for step in record.steps)
            record = replace(record, steps=steps, finished=False)
        return record


@options
class ThresholdBenchmark(StepBenchmark):
    """A benchmark that parts right from wrong steps by a threshold."""

    threshold: FiniteFloat | Literal["auto"] = 0.5
    """Parts right from wrong steps; `auto` chooses it on the validation data."""
    validation: Sources = ()
    """Data of the same layout that `auto` chooses the threshold on; it is in no figure."""

    @abstractmethod
    def judge(self, records: Sequence[StepRecord], scores: Scores, threshold: float) -> BenchmarkResult:
        """What the scores are worth at a threshold."""

    @abstractmethod
    def choose(self, records: Sequence[StepRecord], scores: Scores) -> float:
        """The best threshold on the validation data."""

    def records(self) -> list[StepRecord]:
        found = super().records()
        if self.validation and self.threshold == "auto":
            found += [replace(record, decides=True) for record in self._records_of(self.validation)]
        return found

    def measure(self, records: Sequence[StepRecord], scores: Scores) -> BenchmarkResult:
        check_scores(records, scores)
        pairs = list(zip(records, scores, strict=True))
        deciding, judged = ([pair for pair in pairs if pair[0].decides is part] for part in (True, False))
        threshold = self.threshold
        if isinstance(threshold, str):
            threshold = self.choose(*_apart(deciding or self._deciding(judged)))
        return self.judge(*_apart(judged), threshold)

    def _deciding(self, judged: list[tuple[StepRecord, Sequence[float]]]) -> list[tuple[StepRecord, Sequence[float]]]:
        """The records to choose the threshold on, where there are no validation data."""
        raise GradatimError(
            "this benchmark has no part to choose a threshold on; give a number as threshold, or validation data",
        )


def _apart(pairs: Sequence[tuple[StepRecord, Sequence[float]]]) -> tuple[list[StepRecord], list[Sequence[float]]]:
    return [record for record, _ in pairs], [scores for _, scores in pairs]


def best_quantile(scores: Scores, quality: Callable[[float], float]) -> float:
    """The threshold of the highest quality, the lowest of equals, among 99 quantiles of the scores."""
    values = np.concatenate([np.asarray(part) for part in scores])
    return max(map(float, np.unique(np.quantile(values, np.linspace(0.01, 0.99, 99)))), key=quality)


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
        return benchmark_section(self.title, {name: result.figures() for name, result in self.results.items()})

    def to_json(self) -> dict[str, Any]:
        results = {name: result.to_json() for name, result in self.results.items()}
        return {"title": self.title, "settings": dict(self.settings), "results": results}

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``report.json`` and ``report.md`` into ``folder``, each whole or not at all.

        Raises:
            GradatimError: if the disk is full or the folder cannot be written.
        """
        write_json(Path(folder) / "report.json", self.to_json())
        settings = [[name, str(value)] for name, value in self.settings.items()]
        sections = [replace(self.section(), title=""), Section("Settings", [Table(["setting", "value"], settings)])]
        write_text(Path(folder) / "report.md", markdown_page(self.title, sections))


def benchmark_section(title: str, figures: Mapping[str, Mapping[str, float | None]]) -> Section:
    """The table of a benchmark; ``figures`` are those of each scorer."""
    names = list(dict.fromkeys(name for column in figures.values() for name in column))
    rows = [[name, *(_cell(name, column.get(name)) for column in figures.values())] for name in names]
    return Section(title, [Table(["", *figures], rows, "Shares in percent.")])


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    if name == "threshold":
        return f"{value:.4g}" if math.isfinite(value) else "above all scores"
    return f"{value:.1f}"
