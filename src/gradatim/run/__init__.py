"""The loop that runs a recipe: grow trees, learn from them, go round again, evaluate.

Every stage is skipped as far as it was done before, so the same call on the same folder goes on where it was stopped,
and after a change of the recipe only what depends on it is done anew.
"""

from __future__ import annotations

import os
import time
import warnings
from typing import Any

import torch

from gradatim.recipes.recipe import Recipe
from gradatim.run.benchmarks import measure_benchmarks
from gradatim.run.checking import check_once
from gradatim.run.context import Run
from gradatim.run.evaluating import measure_policy, sample_solutions, sampling_methods, searched
from gradatim.run.learning import learn
from gradatim.run.online import learn_online
from gradatim.run.progress import Progress
from gradatim.run.reporting import Measured, write_report
from gradatim.run.run_folder import RunFolder
from gradatim.run.stages import policies_of, trainings_of
from gradatim.run.together import by_first
from gradatim.run.trees import training_trees
from gradatim.tasks.guarded import verifier_record
from gradatim.tree import Tree

__all__ = ["Progress", "Run", "RunFolder", "run_recipe"]


@by_first
def run_recipe(
    recipe: Recipe, output: str | os.PathLike[str], *, fresh: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Run ``recipe`` in the folder ``output``, or go on with the run that was begun there.

    Args:
        recipe: what to run.
        output: the run folder (see :class:`~gradatim.run.run_folder.RunFolder`).
        fresh: delete an earlier run in the folder first.
        progress: where progress is shown.

    Returns:
        The content of ``report.json``.

    Raises:
        GradatimError: if another process uses the folder, or an input cannot be used.
    """
    torch.set_num_threads(max(1, min(torch.get_num_threads(), os.cpu_count() or 1)))
    with RunFolder(output, recipe, fresh=fresh) as folder:
        started = time.perf_counter()
        run = Run(recipe, folder, Progress() if progress is None else progress)
        check_once(run)
        first_trees = _rounds(run)
        report = _evaluate(run, first_trees)
        if failures := verifier_record(run.task).sentence():
            warnings.warn(failures, stacklevel=2)
        run.progress.line(f"Report: {folder.path / 'report.md'} ({time.perf_counter() - started:.0f} s in all)")
        return report


def _rounds(run: Run) -> list[Tree]:
    """All growing and learning; returns the training trees of the first round, which the first policy grew."""
    if run.recipe.online is not None:
        for stage in trainings_of(run.recipe, 0):
            learn(run, stage, 0, [])
        return learn_online(run)
    first: list[Tree] = []
    for number in range(run.recipe.rounds + 1):
        trees = training_trees(run, number) if number else []
        first = trees if number == 1 else first
        for stage in trainings_of(run.recipe, number):
            learn(run, stage, number, trees)
    return first


def _evaluate(run: Run, first_trees: list[Tree]) -> dict[str, Any]:
    benchmarks = measure_benchmarks(run)  # what was trained last is in memory still
    trained = policies_of(run.recipe)
    policies: dict[str, Measured] = {}
    for key in reversed(trained):  # the last policy is in memory still
        sampled, greedy = sample_solutions(run, key, trained[key])
        policies[key] = Measured(measure_policy(run, sampled, greedy), sampled)
    policies = {key: policies[key] for key in trained}
    search = sampling_methods(run, policies[run.searched_policy].sampled) if policies else []
    search += [searched(run, search) for search in run.recipe.evaluation.search if policies]
    return write_report(run, policies, search, benchmarks, first_trees)
