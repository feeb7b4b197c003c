"""Running a comparison: each method at each size and seed, on the disk as soon as it is done."""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradatim.engine.reader import Reader
from gradatim.errors import GradatimError
from gradatim.evaluation.compare import Cost, mean_spending
from gradatim.evaluation.equal_compute import Curve, Point, curve
from gradatim.evaluation.steps import ScoredStates, scored_states
from gradatim.evaluation.written import Numbers, Written, written
from gradatim.part import content_of, models_of
from gradatim.policies.base import Policy
from gradatim.recipes.comparison import Comparison
from gradatim.recipes.recipe import POLICY
from gradatim.run.comparison_cells import Cell, SamplesCell, cells_of
from gradatim.run.comparison_report import JudgedSteps, write_comparison
from gradatim.run.contents import contents
from gradatim.run.models import Models
from gradatim.run.outcomes import off_format_warnings, unscored_warnings
from gradatim.run.progress import Progress
from gradatim.run.run_folder import RunFolder
from gradatim.run.searching import Searcher, search_into
from gradatim.run.together import by_first
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.store.files import write_json
from gradatim.store.trees import TreeStore
from gradatim.tasks.base import Task
from gradatim.tasks.guarded import guarded, verifier_record
from gradatim.tasks.truth import state_truth
from gradatim.tree import Problem, Tree

Outcome = dict[str, Any]
"""What came of a cell, as it is stored: ``asked`` and ``problems`` (ids), ``seconds``, ``points``, ``states``."""


@by_first
def run_comparison(
    comparison: Comparison, output: str | os.PathLike[str], *, fresh: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Run ``comparison`` in the folder ``output``, or go on with the one that was begun there.

    Args:
        comparison: what to compare.
        output: the folder: ``points/*.json`` has what came of each method at each size and seed, ``trees/*.jsonl`` the
            trees, ``report.json``, ``report.md`` and ``plots/`` the outcome.
        fresh: delete an earlier comparison in the folder first.
        progress: where progress is shown.

    Returns:
        The content of ``report.json``.

    Raises:
        GradatimError: if another process uses the folder, or an input cannot be used.
    """
    return compared(comparison, output, fresh=fresh, progress=progress).report


@dataclass(frozen=True)
class Compared:
    """What came of a comparison.

    Attributes:
        report: the content of ``report.json``.
        curves: of each method.
        judged: what the scorers said of partial solutions.
        policies: what was written by the policies that are compared without search.
    """

    report: dict[str, Any]
    curves: list[Curve]
    judged: list[JudgedSteps]
    policies: list[Written] = field(default_factory=list)


def compared(
    comparison: Comparison, output: str | os.PathLike[str], *, fresh: bool = False, progress: Progress | None = None
) -> Compared:
    """As :func:`run_comparison`, with all that the report is made from."""
    torch.set_num_threads(max(1, min(torch.get_num_threads(), os.cpu_count() or 1)))
    with RunFolder(output, comparison, fresh=fresh) as folder:
        work = _Work(comparison, folder, Progress() if progress is None else progress)
        cells = cells_of(comparison, work.judges)
        work.check(cells)
        found = [(cell, work.outcome(cell)) for cell in cells]
        shared = problems_of_all(found)
        curves, judged = curves_of(comparison, found, shared), work.judged_steps(found)
        policies = written_by(comparison, found, shared)
        failed = {id: error for cell, _ in found for id, error in folder.record(cell.name).get("failed", {}).items()}
        compared = Compared({}, curves, judged, policies)
        report = write_comparison(folder, comparison, curves, judged, policies, failed)
        if failures := verifier_record(work.task).sentence():
            warnings.warn(failures, stacklevel=2)
        work.progress.line(f"Report: {folder.path / 'report.md'}")
        return replace(compared, report=report)


def merged(comparison: Comparison, parts: Sequence[Compared], output: Path) -> Compared:
    """Comparisons of the same methods after trainings with several seeds as one, with its report in ``output``.

    Scorers are judged by all parts together. Each part has its own folder, which the paths in its report are of.

    Raises:
        GradatimError: if the parts are not of the same problems.
    """
    if len({each.report["problems"] for each in parts}) > 1:
        raise GradatimError("comparisons of different numbers of problems are no one comparison; run all to their end")
    curves = [_merged_curve([part.curves[place] for part in parts]) for place in range(len(parts[0].curves))]
    judged = [
        replace(each, test=[states for part in parts for states in part.judged[place].test],
                validation=[states for part in parts for states in part.judged[place].validation])
        for place, each in enumerate(parts[0].judged)
    ]  # fmt: skip
    policies = [_merged_written([part.policies[place] for part in parts]) for place in range(len(parts[0].policies))]
    failed = {id: error for part in parts for id, error in part.report["failed"].items()}
    found = Compared({}, curves, judged, policies)
    with RunFolder(output, comparison) as folder:
        return replace(found, report=write_comparison(folder, comparison, curves, judged, policies, failed))


def _merged_written(seeds: Sequence[Written]) -> Written:
    def stacked(of: Callable[[Written], Numbers]) -> Numbers:
        return np.concatenate([of(each) for each in seeds])

    return replace(
        seeds[0],
        right=stacked(lambda each: each.right),
        distinct=stacked(lambda each: each.distinct),
        tokens=stacked(lambda each: each.tokens),
    )


def _merged_curve(curves: Sequence[Curve]) -> Curve:
    points = []
    for same in zip(*(sorted(each.points, key=lambda point: point.size or 0) for each in curves), strict=True):
        seconds = [point.seconds for point in same if point.seconds is not None]
        points.append(
            Point(
                np.concatenate([point.solved for point in same]),
                mean_spending([point.spending for point in same]),
                float(np.mean(seconds)) if seconds else None,
                same[0].size,
            )
        )
    return curve(curves[0].name, curves[0].scorer, points, curves[0].policy)


@dataclass
class _Work:
    """A comparison at work; also the :class:`gradatim.scorers.base.Context` of its scorers."""

    comparison: Comparison
    folder: RunFolder
    progress: Progress
    _problems: dict[str, list[Problem]] = field(default_factory=dict)

    @cached_property
    def task(self) -> Task:
        return guarded(self.comparison.task)

    @cached_property
    def models(self) -> Models:
        return Models(self.task, lambda **known: self.folder.update("models", 0.0, **known))

    @cached_property
    def contents(self) -> dict[str, dict[str, str]]:
        """What the local files hold that the comparison names, as digests."""
        return contents(self.comparison)

    @property
    def judges(self) -> bool:
        """Whether the scorers are measured against the truth about partial solutions."""
        return self.comparison.judge_steps and bool(self.comparison.scorers) and state_truth(self.task) is not None

    def policy(self, name: str = POLICY) -> Policy:
        options = self.comparison.model(name)
        return self.models.policy(name, options.model, options)

    def reader(self, name: str) -> Reader:
        options = self.comparison.model(name)
        return self.models.reader(name, options.model, options)

    def reward_model(self, name: str, key: str, layout: str = "auto") -> ProcessRewardScorer:
        options = self.comparison.model(name)
        return self.models.reward_model(name, options.model, options, key, layout)

    def check(self, cells: Sequence[Cell]) -> None:
        """Load every model and open every scorer before the first token, unless all was done before.

        Raises:
            GradatimError: if one of them cannot be used.
        """
        if all(self._points(cell).is_file() for cell in cells):
            return
        with self.progress.loading("the models"):
            for name in dict.fromkeys(cell.policy for cell in cells):
                self.policy(name)
            for part in self.comparison.scorers.values():
                part.open(self)

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, each once."""
        if split not in self._problems:
            drawn = self.task.problems(split, getattr(self.comparison.problems, split))
            self._problems[split] = list({problem.id: problem for problem in drawn}.values())
        return self._problems[split]

    def outcome(self, cell: Cell) -> Outcome:
        """What came of a cell, from the disk where it was done before."""
        problems = self.problems(cell.split)
        path, trees_path = self._points(cell), self.folder.trees(cell.name)
        reason = self.folder.begin(cell.name, self._depends(cell), [path, trees_path])
        if reason is not None:
            self.progress.line(f"{_title(cell)} is done anew: {reason}")
        asked = [problem.id for problem in problems]
        if path.is_file():
            known: Outcome = json.loads(path.read_text(encoding="utf-8"))
            if known["asked"] == known["problems"] == asked and self._has_all(known, cell):
                self.progress.line(f"{_title(cell)}: {len(asked):,} of {len(asked):,} problems, all done before")
                self._drop_trees(trees_path)
                return known
        trees = self._searched(cell, problems, trees_path)
        keys = {name: part.name for name, part in self.comparison.scorers.items()}
        asked_for = [keys[name] for name in cell.scorers] if isinstance(cell, SamplesCell) else []
        unscored = chain.from_iterable(unscored_warnings(trees, key) for key in asked_for)
        for text in (*off_format_warnings(trees), *unscored):
            self.progress.warn(f"{_title(cell)}: {text}")
        outcome = {
            "asked": asked,
            "problems": [tree.problem.id for tree in trees],
            "seconds": self.folder.record(cell.name).get("seconds", 0.0),
            "points": cell.points(trees, keys),
            "counts": cell.counted(trees),
            "states": {name: self._states(trees, keys[name]) for name in self._judged_by(cell)},
        }
        write_json(path, outcome)
        if len(trees) == len(problems):  # else those that failed are tried again
            self._drop_trees(trees_path)
        return outcome

    def _points(self, cell: Cell) -> Path:
        """The file of what came of a cell."""
        return self.folder.path / "points" / f"{cell.name}.json"

    def _has_all(self, known: Outcome, cell: Cell) -> bool:
        """Whether an outcome has all that is counted of a cell now: methods that share samples, and scorers that are
        judged by them, may have come or changed."""
        points = [
            any(all(entry.get(key, value) == value for key, value in point.items()) for entry in known["points"])
            for point in cell.counts()
        ]
        if isinstance(cell, SamplesCell) and cell.measured and not known.get("counts"):
            return False
        return all(points) and all(name in known["states"] for name in self._judged_by(cell))

    def _drop_trees(self, path: Path) -> None:
        if not self.comparison.keep_trees:
            path.unlink(missing_ok=True)

    def judged_steps(self, found: Sequence[tuple[Cell, Outcome]]) -> list[JudgedSteps]:
        """What each scorer said of the partial solutions in the samples, with the truth about them."""
        truth = state_truth(self.task)
        if truth is None or not self.judges:
            return []
        judged = []
        for name in self.comparison.scorers:
            states: dict[str, list[ScoredStates]] = {"test": [], "validation": []}
            for cell, outcome in found:
                states[cell.split] += [_restored(each) for each in outcome["states"].get(name, ())]
            if any(each.scores for each in states["test"]):
                judged.append(JudgedSteps(name, states["test"], states["validation"], truth.name))
        return judged

    def _judged_by(self, cell: Cell) -> tuple[str, ...]:
        """The scorers that are measured on a cell's trees: all, on one set of the policy's samples."""
        measured = isinstance(cell, SamplesCell) and cell.policy == POLICY and cell.seed == self.comparison.seeds[0]
        return tuple(self.comparison.scorers) if measured and self.judges else ()

    def _states(self, trees: Sequence[Tree], key: str) -> list[list[Any]]:
        found = [scored_states(tree, self.task, key) for tree in trees]
        return [[each.labels, each.scores, each.solutions, each.depths] for each in found]

    def _searched(self, cell: Cell, problems: Sequence[Problem], path: Path) -> list[Tree]:
        def make_searcher() -> Searcher:
            return cell.searcher(
                self.policy(cell.policy), {name: self.comparison.scorers[name] for name in cell.scorers}, self
            )

        def record(seconds: float, stored: int, failed: dict[str, str]) -> None:
            self.folder.update(cell.name, seconds, problems=stored, failed=failed)

        earlier = self.folder.record(cell.name)
        recorded = earlier.get("problems")
        if not path.is_file():  # its trees were not kept: it is done again from the start
            self.folder.update(cell.name, -earlier.get("seconds", 0.0))
        with TreeStore(path, damaged="skip") as store:
            return search_into(
                store, _title(cell), problems, make_searcher, record, self.progress, recorded, self.task,
                seed=zlib.crc32(f"{cell.seed} {cell.split}".encode()), budget=cell.budget,
                in_flight=self.comparison.in_flight,
            )  # fmt: skip

    def _depends(self, cell: Cell) -> dict[str, Any]:
        """What a cell's outcome depends on, and no more: so a comparison that grows keeps what it has."""
        comparison = self.comparison
        parts = {name: comparison.scorers[name] for name in cell.scorers}
        models = sorted({cell.policy, *(model for part in parts.values() for model in models_of(part))})
        named = {*(POLICY if name == POLICY else f"models.{name}" for name in models), "task", "scorers", "methods"}
        return {
            "task": content_of(comparison.task),
            "seed": cell.seed,
            "models": {name: comparison.model(name).model_dump(mode="json") for name in models},
            "scorers": {name: content_of(part) for name, part in parts.items()},
            "files": {key: value for key, value in self.contents.items() if key.startswith(tuple(named))},
            **cell.options(),
        }


def problems_of_all(found: Sequence[tuple[Cell, Outcome]]) -> set[str]:
    """The ids of the test problems that all cells have; those that failed anywhere are left out everywhere.

    Raises:
        GradatimError: if there are none.
    """
    shared = set.intersection(*(set(outcome["problems"]) for cell, outcome in found if cell.split == "test"))
    if not shared:
        raise GradatimError("no problem was searched by every method; look at the errors of the problems that failed")
    return shared


def written_by(comparison: Comparison, found: Sequence[tuple[Cell, Outcome]], shared: set[str]) -> list[Written]:
    """What each policy wrote that is compared without search."""
    names = [] if comparison.policies is None else comparison.policies.names
    counts: dict[str, list[list[dict[str, float]]]] = {name: [] for name in names}
    for cell, outcome in found:
        if cell.split == "test" and isinstance(cell, SamplesCell) and cell.measured:
            by_problem = zip(outcome["problems"], outcome["counts"], strict=True)
            counts[cell.policy].append([each for id, each in by_problem if id in shared])
    return [written(name, each) for name, each in counts.items()]


def curves_of(comparison: Comparison, found: Sequence[tuple[Cell, Outcome]], shared: set[str]) -> list[Curve]:
    """A curve for each method over the ``shared`` problems, from what came of all cells."""
    tests = [(cell, outcome) for cell, outcome in found if cell.split == "test"]
    curves = []
    for method in comparison.methods:
        by_size: dict[tuple[int | None, int | None], list[tuple[Outcome, Outcome]]] = {}
        for cell, outcome in tests:
            for entry in outcome["points"]:
                if entry["method"] == method.name:
                    by_size.setdefault((entry["size"], cell.budget), []).append((outcome, entry))
        points = [_point(entries, shared) for entries in by_size.values()]
        curves.append(curve(method.name, method.scorer or "none", points, method.policy))
    return curves


def _point(entries: Sequence[tuple[Outcome, Outcome]], shared: set[str]) -> Point:
    solved, spending, seconds = [], [], []
    for outcome, entry in entries:
        kept = [place for place, id in enumerate(outcome["problems"]) if id in shared]
        solved.append([entry["solved"][place] for place in kept])
        spending += [{name: Cost(**cost) for name, cost in entry["spending"][place].items()} for place in kept]
        seconds.append(entry["share"] * outcome["seconds"] / max(1, len(outcome["problems"])))
    return Point(np.array(solved), mean_spending(spending), float(np.mean(seconds)) or None, entries[0][1]["size"])


def _restored(stored: Sequence[Any]) -> ScoredStates:
    labels, scores, solutions, depths = stored
    return ScoredStates(
        tuple(labels), tuple(scores), tuple((tuple(each), error) for each, error in solutions), tuple(depths)
    )


def _title(cell: Cell) -> str:
    return cell.name.replace("-", " ").capitalize()
