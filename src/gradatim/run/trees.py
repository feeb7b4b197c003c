"""The stages that make the trees that are learned from: grown here or taken from a file, with values of their steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from gradatim.errors import GradatimError
from gradatim.event_loop import run_to_end
from gradatim.recipes.recipe import Recipe, TreeOptions
from gradatim.run.context import Lent, Run
from gradatim.run.outcomes import note_outcomes
from gradatim.run.searching import Searcher, only
from gradatim.store.published.source_rows import format_as_read
from gradatim.store.trees import FIRST_ROUND, TreeStore, trees_file
from gradatim.tasks.base import grade
from gradatim.tree import Problem, Tree
from gradatim.values.base import VALUE


def training_trees(run: Run, number: int) -> list[Tree]:
    """The trees that a round learns from, grown or stored; none where the recipe has neither."""
    recipe = run.recipe
    if recipe.search is None and recipe.trees.stored is None:
        return []
    if not recipe.learns_from_trees and number == 1 and recipe.search is not None:
        run.progress.line("Nothing in this recipe learns from trees; they are grown since it has a search section")
    if recipe.trees.stored is not None:
        return stored_trees(run)
    return grow_trees(run, number, "train", run.problems("train"))


def stored_trees(run: Run) -> list[Tree]:
    """The trees that the recipe names as stored, each step with its values.

    They are copied into the run as those of its first round. Trees of the test problems are left out.

    Raises:
        GradatimError: if there are no trees, none that can be used, or a line is damaged that is not to be skipped.
    """
    path = stored_path(run.recipe.trees)
    if path.resolve().is_relative_to(run.folder.path.resolve()):
        raise GradatimError(f"trees.stored names {str(path)!r}, which this run writes itself; choose another --output")
    name, held_out = FIRST_ROUND, {problem.prompt for problem in run.problems("test")}
    run.begin(name, run.folder.trees(name))
    started = time.perf_counter()
    wanted = run.recipe.problems.train or None
    given = TreeStore(path, damaged=run.recipe.trees.damaged)
    with given, TreeStore(run.folder.trees(name), damaged="skip") as store:
        ids = list(islice((tree.problem.id for tree in given if tree.problem.prompt not in held_out), wanted))
        with run.progress.stage(f"Taking the trees of {path}", len(ids), sum(id in store for id in ids)) as stage:
            for id in ids:
                if id not in store and (tree := given.get(id)) is not None:
                    if is_of_task(tree):
                        grade(tree, run.task)
                    run_to_end(_write_values(run, {})(tree))
                    store.append(tree)
                    stage.advance()
        if not ids:
            raise no_stored_trees(path)
        run.folder.update(name, time.perf_counter() - started, problems=len(ids))
        return [tree for id in ids if (tree := store.get(id)) is not None]


def is_of_task(tree: Tree) -> bool:
    """Whether the task can judge a tree: its problem may be another's where it was read from rows that tell no
    reference answer, and then the rows say all that is known of it."""
    return tree.problem.answer is not None or format_as_read(tree) is None


def no_stored_trees(path: Path) -> GradatimError:
    """The error of a file without trees to learn from."""
    if not path.stat().st_size:
        return GradatimError(f"the file {str(path)!r} is empty; name a run or a file with trees as trees.stored")
    return GradatimError(f"{str(path)!r} holds no trees but of test problems; name trees of other problems")


def stored_path(options: TreeOptions) -> Path:
    """The file of the trees that ``options`` name.

    Raises:
        GradatimError: if it is not there.
    """
    assert options.stored is not None, "the recipe has stored trees"
    return trees_file(options.stored, "trees.stored")


def grow_trees(run: Run, number: int, split: str, problems: Sequence[Problem]) -> list[Tree]:
    """Trees of ``problems`` grown with the models as the round before left them, each step with its values."""
    recipe = run.recipe
    name = f"round-{number}" if split == "train" else f"round-{number}-{split}"
    title = f"Growing trees, round {number}" + ("" if split == "train" else f", {split}")
    trees = run.search_trees(
        name,
        title,
        problems,
        lambda: tree_searcher(run, run.stages[name].uses or {}),
        seed=run.seed(f"trees {number}"),
        budget=recipe.trees.budget,
        in_flight=recipe.trees.in_flight,
    )
    note_outcomes(run, name, title, trees, split, budget_key="trees.budget", value=grown_value(recipe))
    return trees


def tree_searcher(run: Run, trained: Mapping[str, str | None]) -> Searcher:
    """The search that the recipe grows trees by, with its models as the stages of ``trained`` left them."""
    search, part = run.recipe.search, run.recipe.scorer
    assert search is not None, "the recipe was checked: who asks for trees has a search"
    lent = Lent(run, trained)
    policy, scorer = lent.policy(), None if part is None else part.open(lent)
    write_values = _write_values(run, trained)

    async def finish(tree: Tree) -> None:
        for regrowth in run.recipe.regrow:
            await regrowth(tree, lent)
        await write_values(tree)

    return Searcher(
        lambda tree: search(tree, policy, scorer, answer=run.task.answer),
        policy,
        only(scorer),
        finish,
    )


def value_key(recipe: Recipe) -> str:
    """The name of the values that the trees of a recipe are grown to have."""
    return recipe.values[-1].key if recipe.values else VALUE


def grown_value(recipe: Recipe) -> str | None:
    """The name of the values that all leaves should have; ``None`` where solutions are sampled for values, which need
    none themselves."""
    return None if any(values.runs_models for values in recipe.values) else value_key(recipe)


def _write_values(run: Run, trained: Mapping[str, str | None]) -> Callable[[Tree], Coroutine[Any, Any, None]]:
    """What writes the recipe's values to a graded tree, one after another."""

    async def write(tree: Tree) -> None:
        for values in run.recipe.values:
            await values(tree, Lent(run, trained))

    return write
