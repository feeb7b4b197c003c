"""Rerunning the claims of papers: what is trained first, the comparison, and whether each claim is won or lost."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradatim.errors import GradatimError
from gradatim.evaluation.bootstrap import Estimate, Indices, bootstrap_statistic
from gradatim.evaluation.equal_compute import SIGNIFICANT, Curve, corrected, differences
from gradatim.evaluation.metrics import auc
from gradatim.evaluation.steps import ScoredStates
from gradatim.evaluation.written import written_difference
from gradatim.proportions import TOKENS
from gradatim.recipes.load import load_recipe
from gradatim.recipes.pretrain import PretrainRecipe
from gradatim.recipes.recipe import Recipe
from gradatim.recipes.study import Claim, Size, Study, placed_in
from gradatim.run import run_recipe
from gradatim.run.comparing import Compared, compared, merged
from gradatim.run.progress import Progress
from gradatim.run.replication_report import RESULT, write_replication
from gradatim.run.together import by_first
from gradatim.store.files import write_json

ENOUGH_SEEDS, ENOUGH_PROBLEMS, LARGE = 3, 1000, 0.1
"""What a difference below ``LARGE`` needs to be called won or lost; with less, it only leans that way."""


@by_first
def replicate(
    studies: Sequence[Study], output: str | os.PathLike[str], size: Size, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Run studies in the folder ``output``, or go on with them; those that ran there before stay in its report.

    Args:
        studies: what to run.
        output: the folder: a folder of each size, in it one of each study and testbed, and ``prepared`` with the models
            that were trained first; ``report.json``, ``report.md`` and ``plots/``.
        size: ``smoke`` only shows that all works.
        progress: where progress is shown.

    Returns:
        The content of ``report.json``.

    Raises:
        GradatimError: if an input cannot be used; what ran before it is in the report.
    """
    shown = Progress() if progress is None else progress
    folder = Path(output)
    for study in studies:  # before anything runs
        for testbed in study.testbeds_at(size):
            study.prepared_for(testbed, size)
    for study in studies:
        for testbed in study.testbeds_at(size):
            shown.line(f"\n{study.name} on {testbed}: {study.summary}")
            _run(study, testbed, size, folder, shown)
            write_replication(folder, size)
    return write_replication(folder, size)


def _run(study: Study, testbed: str, size: Size, folder: Path, progress: Progress) -> None:
    started = time.perf_counter()
    place = folder / size / study.name / testbed
    names = study.prepared_for(testbed, size)
    prepared: dict[str, list[Path]] = {name: [] for name in names}
    found = []
    seeds = study.at(size).training_seeds
    for seed in seeds or (None,):
        placed: dict[str, Path] = {}
        for name in names:
            placed[name] = _prepare(study, name, size, folder, progress, seed, placed)
        for name, path in placed.items():
            prepared[name].append(path)
        comparison = study.comparison_on(testbed, size, {name: str(path) for name, path in placed.items()}, seed)
        found.append(compared(comparison, place if seed is None else place / f"seed-{seed}", progress=progress))
    whole = found[0] if len(found) == 1 else merged(comparison.model_copy(update={"seeds": seeds}), found, place)
    result = {
        "study": study.name,
        "testbed": testbed,
        "size": size,
        "summary": study.summary,
        "systems": study.systems,
        "claims": [{**claim.model_dump(), **judged(claim, whole)} for claim in study.claims],
        "prepared": {name: label_costs(paths) for name, paths in prepared.items()},
        "trainings": len(found),
        "report": whole.report,
        "seconds": time.perf_counter() - started,
    }
    write_json(place / RESULT, result)


def _prepare(
    study: Study, name: str, size: Size, folder: Path, progress: Progress, seed: int | None, placed: Mapping[str, Path]
) -> Path:
    """The folder of a preparation's run; studies that prepare the same thing share it. ``placed`` are those of the
    preparations before it."""
    source, changes = study.prepare[name].recipe, study.overrides(name, size, seed)
    changes = [placed_in(change, {each: str(path) for each, path in placed.items()}) for change in changes]
    digest = hashlib.sha256(json.dumps([source, changes]).encode()).hexdigest()[:8]
    place = folder / size / "prepared" / f"{source}-{digest}"
    recipe = load_recipe(source, changes)
    if _is_done(place, recipe.model_dump(mode="json")):
        return place
    if isinstance(recipe, PretrainRecipe):
        from gradatim.training.from_scratch import pretrain

        pretrain(recipe.task, recipe.task.tokenizer(), recipe.size, recipe.training, place)
    elif isinstance(recipe, Recipe):
        run_recipe(recipe, place, progress=progress)
    else:
        raise GradatimError(f"the study {study.name!r} prepares {source!r}, which trains no model")
    return place


def _is_done(run: Path, recipe: dict[str, Any]) -> bool:
    """Whether a run is finished that was of this very recipe."""
    path = run / "report.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("recipe") == recipe


def label_costs(runs: Sequence[Path]) -> dict[str, Any] | None:
    """Tokens that the training trees of runs cost, all rounds together, and the problems they are of: means over the
    runs; ``None`` where they grew none."""
    from gradatim.store.trees import ALL_ROUNDS, TreeStore

    problems, tokens = 0, 0
    for path in (each for run in runs for each in (run / "trees").glob("round*.jsonl")):
        if path.stem != ALL_ROUNDS and not path.stem.removeprefix("round-").isdecimal():
            continue  # of validation problems
        with TreeStore(path, damaged="skip") as store:
            spent = [tree.budget.total for tree in store]
        problems, tokens = problems + len(spent), tokens + sum(spent)
    return {"problems": problems // len(runs), "tokens": tokens // len(runs)} if problems else None


def judged(claim: Claim, found: Compared) -> dict[str, Any]:
    """Whether a claim is won, lost, mixed or undecided here, with the figures that say so.

    Raises:
        GradatimError: if it names a method that was not run.
    """
    if claim.by == "auc":
        return _judged_by_auc(claim, found)
    if claim.by != "accuracy":
        return _judged_by_writing(claim, found)
    first, second = (_curve(name, found.curves) for name in (claim.first, claim.second))
    tests = corrected(differences(first, second))
    verdicts = {test.verdict for test in tests}
    won, lost = "better" in verdicts, "worse" in verdicts
    verdict = "mixed" if won and lost else "won" if won else "lost" if lost else "undecided"
    seeds, problems = first.points[0].solved.shape
    shown = [test.difference.value for test in tests if test.verdict != "undecided"]
    if shown and (seeds < ENOUGH_SEEDS or problems < ENOUGH_PROBLEMS) and max(map(abs, shown)) < LARGE:
        verdict = f"leans {verdict}"
    return {"verdict": verdict if tests else "not measured", "differences": [test.to_json() for test in tests]}


def _judged_by_auc(claim: Claim, found: Compared) -> dict[str, Any]:
    states = {each.scorer: each.test for each in found.judged}
    if claim.first not in states or claim.second not in states:  # it scored nothing, or nobody knows the truth
        return {"verdict": "not measured"}
    difference = auc_difference(states[claim.second], states[claim.first])
    if difference is None or difference.low is None or difference.high is None:
        return {"verdict": "not measured"}
    verdict = "won" if difference.low > 0 else "lost" if difference.high < 0 else "undecided"
    if verdict != "undecided" and difference.n < ENOUGH_PROBLEMS and abs(difference.value) < LARGE:
        verdict = f"leans {verdict}"
    return {"verdict": verdict, "auc_difference": difference.to_json()}


def _judged_by_writing(claim: Claim, found: Compared) -> dict[str, Any]:
    policies = {each.name: each for each in found.policies}
    for name in (claim.first, claim.second):
        if name not in policies:
            raise GradatimError(f"a claim is about the policy {name!r}, which was not measured; name one of policies")
    first, second = policies[claim.first], policies[claim.second]
    test = written_difference(first, second, claim.by)
    fewer = claim.by == TOKENS
    scale = float(second.measure(claim.by).mean()) if fewer else 1.0
    sure = test.p < SIGNIFICANT and test.difference.value != 0
    verdict = "undecided" if not sure else "won" if (test.difference.value < 0) == fewer else "lost"
    seeds, problems = first.right.shape
    small = abs(test.difference.value) < LARGE * scale
    if sure and small and (seeds < ENOUGH_SEEDS or problems < ENOUGH_PROBLEMS):
        verdict = f"leans {verdict}"
    return {"verdict": verdict, "written_difference": test.to_json()}


def auc_difference(first: Sequence[ScoredStates], second: Sequence[ScoredStates]) -> Estimate | None:
    """The AUC of the second scorer minus that of the first on the same problems, its interval by resampling problems.

    Returns:
        ``None`` where all states are alike.
    """
    columns = [
        [(np.array(each.labels, dtype=bool), np.array(each.scores, dtype=float)) for each in scorer]
        for scorer in (first, second)
    ]

    def value(indices: Indices) -> float | None:
        before, after = (
            auc(np.concatenate([column[i][0] for i in indices]), np.concatenate([column[i][1] for i in indices]))
            for column in columns
        )
        return None if before is None or after is None else after - before

    return bootstrap_statistic(value, len(columns[0]), resamples=500)


def _curve(name: str, curves: Sequence[Curve]) -> Curve:
    for each in curves:
        if each.name == name:
            return each
    raise GradatimError(f"a claim is about the method {name!r}, which was not run; name one of methods")
