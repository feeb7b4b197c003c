"""The stage that measures the scorer on benchmarks of step scorers, and what the report shows of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gradatim.errors import GradatimError
from gradatim.evaluation.baselines import constant_scores
from gradatim.evaluation.benchmarks.base import benchmark_section
from gradatim.evaluation.page import Section
from gradatim.evaluation.record_scoring import ScoreFile, score_records
from gradatim.evaluation.step_records import StepRecord
from gradatim.event_loop import run_to_end
from gradatim.part import content_of, name_of
from gradatim.run.context import Run
from gradatim.run.stages import BENCHMARKS


def check_benchmarks(run: Run) -> None:
    """See that each benchmark can be read and measured.

    Raises:
        GradatimError: if one cannot; says which.
    """
    for benchmark in run.recipe.evaluation.benchmarks:
        try:
            records = benchmark.records()
            benchmark.measure(records, constant_scores(records))
        except GradatimError as error:
            raise GradatimError(
                f"evaluation.benchmarks, {name_of(benchmark)}: {error}", options=error.options
            ) from error


def measure_benchmarks(run: Run) -> list[dict[str, Any]]:
    """What the recipe's scorer reaches on each of its benchmarks, beside scores that anybody can have.

    Every score is on the disk before the next ones are made, and is found by what the scorer read: another benchmark
    or another option adds what is missing, and no more.
    """
    benchmarks, part = run.recipe.evaluation.benchmarks, run.recipe.evaluation.scorer
    if not benchmarks:
        return []
    assert part is not None, "the recipe was checked: benchmarks measure a scorer"
    path = run.folder.path / BENCHMARKS / "scores.jsonl"
    run.begin(BENCHMARKS, path)
    kept, records = ScoreFile(path, part.name), [benchmark.records() for benchmark in benchmarks]
    different = {each.digest: each for part in records for each in part}.values()
    if any(kept.get(each) is None for each in different):
        _score(run, list(different), kept)
    return [_measured(each, of, part.name, kept) for each, of in zip(benchmarks, records, strict=True)]


def _score(run: Run, records: list[StepRecord], kept: ScoreFile) -> None:
    with run.progress.loading("the scorer"):
        judge = run.judge()
    assert judge is not None, "the recipe was checked: benchmarks measure a scorer"
    started, done = time.perf_counter(), 0
    try:
        with run.progress.stage("Scoring the solutions of benchmarks") as stage:

            def count(scored: int) -> None:
                nonlocal done
                done += scored
                stage.note(f"{done:,} of {len(records):,} solutions")

            run_to_end(score_records(records, judge, scores=kept, progress=count))
    finally:
        run.folder.update(BENCHMARKS, time.perf_counter() - started, solutions=len(kept))


def _measured(benchmark: Any, records: list[StepRecord], scorer: str, kept: ScoreFile) -> dict[str, Any]:
    scores = [kept.get(record) for record in records]
    pairs = [(record, each) for record, each in zip(records, scores, strict=True) if each is not None]
    results = benchmark.report([record for record, _ in pairs], scorer, [each for _, each in pairs])
    return {
        **content_of(benchmark),
        "title": benchmark.title,
        "solutions": len(pairs),
        "left_out": [record.id for record, each in zip(records, scores, strict=True) if each is None],
        "figures": {name: result.figures() for name, result in results.items()},
        "results": {name: result.to_json() for name, result in results.items()},
    }


def benchmark_sections(value: Mapping[str, Any]) -> list[Section]:
    """The tables of the benchmarks; ``value`` is the content of ``report.json``."""
    sections = []
    for each in value["benchmarks"]:
        section = benchmark_section(each["title"], each["figures"])
        telling = {key: each[key] for key in ("data", "split", "limit", "threshold", "aggregate") if each.get(key)}
        text = (
            f"{each['solutions']:,} solutions; {', '.join(f'{key} {_shown(told)}' for key, told in telling.items())}."
        )
        if each["left_out"]:
            text += f" Left out, since a step has no score: {', '.join(each['left_out'])}."
        sections.append(Section(section.title, [text, *section.blocks]))
    return sections


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
