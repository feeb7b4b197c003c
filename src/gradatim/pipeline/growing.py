"""The stage that grows trees to learn from, and gives their steps values."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path

from gradatim.errors import GradatimError
from gradatim.pipeline.context import Run, Searcher
from gradatim.pipeline.outcomes import note_outcomes
from gradatim.policies.base import Policy
from gradatim.recipes.schema import (
    BeamTreeOptions,
    GrowOptions,
    MctsTreeOptions,
    Recipe,
    RolloutValues,
    SamplingSearchOptions,
    StoredTrees,
)
from gradatim.scorers.rollouts import RolloutScorer
from gradatim.search import back_up_values, beam_search, grow, independent_sampling, mcts
from gradatim.store.published.base import LABEL
from gradatim.store.trees import TreeStore
from gradatim.tasks.base import Task, grade, grade_without_blocking
from gradatim.tree import Node, Problem, Tree

VALUE = "value"  # the name under which trees keep what a step is worth
_GUIDE = "guide"


def training_trees(run: Run, round_number: int) -> list[Tree]:
    """The trees that a round learns from, grown or stored; none where the recipe has no search."""
    options = run.recipe.search
    if options is None:
        return []
    if run.recipe.learner is None:
        run.progress.line("Nothing in this recipe learns from trees; they are grown since it has a search section")
    if isinstance(options, StoredTrees):
        return stored_trees(run, options)
    return grow_trees(run, round_number, "train", run.problems("train"))


def stored_trees(run: Run, options: StoredTrees) -> list[Tree]:
    """The trees that ``options`` name, each step with its value under :data:`VALUE`.

    They are copied into the run as those of its first round. Trees of the test problems are left out. What has a value
    keeps it; steps that were imported with labels are worth their labels.

    Raises:
        GradatimError: if there are no trees, none that can be used, or a line is damaged that is not to be skipped.
    """
    path = stored_path(options)
    name, held_out = "round-1", {problem.prompt for problem in run.problems("test")}
    run.begin(name, run.folder.trees(name))
    started = time.perf_counter()
    wanted = run.recipe.problems.train or None
    with TreeStore(path, damaged=options.damaged) as given, TreeStore(run.folder.trees(name), damaged="skip") as store:
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
        return GradatimError(f"the file {str(path)!r} is empty; name a run or a file with trees as search.trees")
    return GradatimError(f"{str(path)!r} holds no trees but of test problems; name trees of other problems")


def stored_path(options: StoredTrees) -> Path:
    """The file of the trees that ``options`` name.

    Raises:
        GradatimError: if it is not there.
    """
    source = Path(options.trees).expanduser()
    if not source.exists():
        raise GradatimError(f"search.trees names {options.trees!r}, which is not there; name a run or trees file")
    path = source / "trees" / "round-1.jsonl" if source.is_dir() else source
    if not path.is_file():
        raise GradatimError(f"search.trees names {options.trees!r}, where there are no trees; name a run or trees file")
    return path


def grow_trees(run: Run, round_number: int, split: str, problems: Sequence[Problem]) -> list[Tree]:
    """Trees of ``problems`` grown with the policy of the round before, each step with its value under :data:`VALUE`."""
    recipe = run.recipe
    assert recipe.search is not None, "the recipe was checked: who asks for trees has a search"
    assert not isinstance(recipe.search, StoredTrees), "the recipe was checked: stored trees are not grown"
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
        budget=recipe.search.budget,
        in_flight=recipe.search.in_flight,
        finish=finish,
    )
    note_outcomes(run, name, title, trees, split, budget_key="search.budget", value=VALUE)
    return trees


def tree_search(recipe: Recipe, policy: Policy, task: Task) -> Callable[[Tree], Awaitable[object]]:
    """The search that the recipe grows trees by, followed by the rollouts that its values need."""
    options, values = recipe.search, recipe.values
    valuer = RolloutScorer(policy, task, values.rollouts, VALUE) if isinstance(values, RolloutValues) else None

    async def search(tree: Tree) -> None:
        if isinstance(options, GrowOptions):
            await grow(
                tree,
                policy,
                valuer,
                branching=options.branching,
                rollouts=options.rollouts,
                worth_expanding=_undecided if options.skip_decided else None,
            )
            return
        if isinstance(options, BeamTreeOptions):
            guide = RolloutScorer(policy, task, options.guide_rollouts, _GUIDE)
            await beam_search(tree, policy, guide, width=options.width, branch=options.branch)
        elif isinstance(options, MctsTreeOptions):
            guide = RolloutScorer(policy, task, options.guide_rollouts, _GUIDE)
            await mcts(
                tree,
                policy,
                guide,
                simulations=options.simulations,
                branch=options.branch,
                rule=options.rule,
                exploration=options.exploration,
                terminal_value=lambda node: _reward(node, task),
            )
        else:
            assert isinstance(options, SamplingSearchOptions), "the recipe was checked: who grows trees has a search"
            await independent_sampling(tree, policy, n=options.n)
        if valuer is not None:
            await value_by_depth(tree, valuer)

    return search


async def value_by_depth(tree: Tree, valuer: RolloutScorer) -> None:
    """Value every step, from the root downwards, so that the rollouts of a step serve those below it."""
    levels: dict[int, list[Node]] = {}
    for node in tree.nodes[1:]:
        levels.setdefault(node.depth, []).append(node)
    for depth in sorted(levels):
        await valuer.score(levels[depth])


def _undecided(node: Node) -> bool:
    return 0.0 < node.scores.get(VALUE, 0.0) < 1.0


async def _reward(node: Node, task: Task) -> float:
    await grade_without_blocking([node], task)
    return node.reward or 0.0
