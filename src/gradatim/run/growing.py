"""The stage that grows trees to learn from, and gives their steps values."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path

from gradatim.errors import GradatimError
from gradatim.policies.base import Policy
from gradatim.recipes.schema import Recipe, RolloutValues, TreeOptions
from gradatim.run.context import Run, Searcher
from gradatim.run.outcomes import note_outcomes
from gradatim.scorers.rollouts import RolloutScorer
from gradatim.store.published.base import LABEL
from gradatim.store.trees import TreeStore
from gradatim.tasks.base import Task, grade
from gradatim.tree import Node, Problem, Tree
from gradatim.values.backup import back_up_values

VALUE = "value"  # the name under which trees keep what a step is worth
_GUIDE = "guide"


def training_trees(run: Run, round_number: int) -> list[Tree]:
    """The trees that a round learns from, grown or stored; none where the recipe has no search."""
    recipe = run.recipe
    if recipe.search is None and recipe.trees.stored is None:
        return []
    if run.recipe.learner is None:
        run.progress.line("Nothing in this recipe learns from trees; they are grown since it has a search section")
    if recipe.trees.stored is not None:
        return stored_trees(run)
    return grow_trees(run, round_number, "train", run.problems("train"))


def stored_trees(run: Run) -> list[Tree]:
    """The trees that the recipe names as stored, each step with its value under :data:`VALUE`.

    They are copied into the run as those of its first round. Trees of the test problems are left out. What has a value
    keeps it; steps that were imported with labels are worth their labels.

    Raises:
        GradatimError: if there are no trees, none that can be used, or a line is damaged that is not to be skipped.
    """
    path = stored_path(run.recipe.trees)
    name, held_out = "round-1", {problem.prompt for problem in run.problems("test")}
    run.begin(name, run.folder.trees(name))
    started = time.perf_counter()
    wanted = run.recipe.problems.train or None
    given = TreeStore(path, damaged=run.recipe.trees.damaged)
    with given, TreeStore(run.folder.trees(name), damaged="skip") as store:
        ids = list(islice((tree.problem.id for tree in given if tree.problem.prompt not in held_out), wanted))
        with run.progress.stage(f"Taking the trees of {path}", len(ids), sum(id in store for id in ids)) as stage:
            for id in ids:
                if id not in store and (tree := given.get(id)) is not None:
                    _give_values(tree, run.task)
                    store.append(tree)
                    stage.advance()
        if not ids:
            raise no_stored_trees(path)
        run.folder.update(name, time.perf_counter() - started, problems=len(ids))
        return [tree for id in ids if (tree := store.get(id)) is not None]


def _give_values(tree: Tree, task: Task) -> None:
    """Give the steps of a stored tree values, unless some have them: imported labels, else what its solutions say."""
    nodes = tree.nodes[1:]
    if any(VALUE in node.scores for node in nodes):
        return
    labelled = [node for node in nodes if LABEL in node.scores]
    for node in labelled:
        node.scores[VALUE] = node.scores[LABEL]
        if LABEL in node.counts:
            node.counts[VALUE] = node.counts[LABEL]
    if not labelled:
        grade(tree, task)
        back_up_values(tree, VALUE)


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
    source = Path(options.stored).expanduser()
    if not source.exists():
        raise GradatimError(f"trees.stored names {options.stored!r}, which is not there; name a run or trees file")
    path = source / "trees" / "round-1.jsonl" if source.is_dir() else source
    if not path.is_file():
        raise GradatimError(
            f"trees.stored names {options.stored!r}, where there are no trees; name a run or trees file"
        )
    return path


def grow_trees(run: Run, round_number: int, split: str, problems: Sequence[Problem]) -> list[Tree]:
    """Trees of ``problems`` grown with the policy of the round before, each step with its value under :data:`VALUE`."""
    recipe = run.recipe
    assert recipe.search is not None, "the recipe was checked: who asks for trees has a search"
    name = f"round-{round_number}" if split == "train" else f"round-{round_number}-{split}"

    def make_searcher() -> Searcher:
        policy = run.load_policy(run.policy_path(round_number - 1))
        return Searcher(tree_search(recipe, policy, run.task), policy)

    def finish(tree: Tree) -> None:
        if recipe.values.name == "backup":
            back_up_values(tree, VALUE)

    title = f"Growing trees, round {round_number}" + ("" if split == "train" else f", {split}")
    trees = run.search_trees(
        name,
        title,
        problems,
        make_searcher,
        seed=run.seed(f"trees {round_number}"),
        budget=recipe.trees.budget,
        in_flight=recipe.trees.in_flight,
        finish=finish,
    )
    note_outcomes(run, name, title, trees, split, budget_key="trees.budget", value=VALUE)
    return trees


def tree_search(recipe: Recipe, policy: Policy, task: Task) -> Callable[[Tree], Awaitable[object]]:
    """The search that the recipe grows trees by, followed by the rollouts that its values need.

    A search that a scorer guides is guided by rollouts. Where the recipe's values are rollouts, a search that scores
    all steps has them on the way.
    """
    chosen, values = recipe.search, recipe.values
    assert chosen is not None, "the recipe was checked: who asks for trees has a search"
    valuer = RolloutScorer(policy, task, values.rollouts, VALUE) if isinstance(values, RolloutValues) else None
    guide = RolloutScorer(policy, task, recipe.trees.guide_rollouts, _GUIDE) if chosen.is_guided else None

    async def search(tree: Tree) -> None:
        await chosen(tree, policy, valuer if chosen.scores_steps else guide, answer=task.answer)
        if valuer is not None and not chosen.scores_steps:
            await value_by_depth(tree, valuer)

    return search


async def value_by_depth(tree: Tree, valuer: RolloutScorer) -> None:
    """Value every step, from the root downwards, so that the rollouts of a step serve those below it."""
    levels: dict[int, list[Node]] = {}
    for node in tree.nodes[1:]:
        levels.setdefault(node.depth, []).append(node)
    for depth in sorted(levels):
        await valuer.score(levels[depth])
