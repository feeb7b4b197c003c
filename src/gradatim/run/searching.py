"""Searching many problems into a store, so that nothing that was searched is lost and nothing is searched twice."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from gradatim.budget import Budget
from gradatim.errors import GradatimError, ProblemError
from gradatim.event_loop import run_to_end
from gradatim.policies.base import Policy
from gradatim.run.progress import Progress
from gradatim.scorers.base import Scorer
from gradatim.search.many import search_many
from gradatim.store.trees import TreeStore
from gradatim.tasks.base import Task, grade_nodes
from gradatim.tree import Problem, Tree


@dataclass(frozen=True, slots=True)
class Searcher:
    """One way to search a tree, with the models that it runs.

    Attributes:
        search: searches one tree.
        policy: proposes steps.
        scorers: guide or score, where there are any.
        finish: grows on in a tree that was searched and graded, and writes what its steps are worth.
    """

    search: Callable[[Tree], Awaitable[object]]
    policy: Policy
    scorers: Sequence[Scorer] = ()
    finish: Callable[[Tree], Awaitable[object]] | None = None

    def release(self, tree: Tree) -> None:
        self.policy.release(tree)
        for scorer in self.scorers:
            scorer.release(tree)


def only(scorer: Scorer | None) -> tuple[Scorer, ...]:
    """The scorers of a search that has one or none."""
    return () if scorer is None else (scorer,)


def search_into(
    store: TreeStore,
    title: str,
    problems: Sequence[Problem],
    make_searcher: Callable[[], Searcher],
    record: Callable[[float, int, dict[str, str]], None],
    progress: Progress,
    recorded: int | None,
    task: Task,
    *,
    seed: int,
    budget: int | None = None,
    in_flight: int = 64,
) -> list[Tree]:
    """A searched and graded tree for every problem, from the store as far as they are there.

    Args:
        store: has the trees that were searched before; each further one is on the disk before the next is counted.
        title: what the progress line says.
        problems: what to search.
        make_searcher: loads the models; not called if no tree is missing.
        record: called at the end, also of work that was broken off, with its seconds, the number of trees in the store
            and the errors of the problems that failed alone, by their ids.
        progress: where progress is shown.
        recorded: how many trees an earlier record speaks of.
        task: grades the trees.
        seed: of the trees; equal seeds give equal draws for equal problems.
        budget: tokens that a tree may cost.
        in_flight: trees at the same time.

    Returns:
        The trees in the order of ``problems``, without those that failed.

    Raises:
        GradatimError: if the search of every problem failed, or one failed in a way that concerns them all.
    """
    found: dict[str, Tree] = {}
    failed: dict[str, str] = {}
    missing = [problem for problem in problems if problem.id not in store]
    if not missing:
        progress.line(f"{title}: {len(problems):,} of {len(problems):,} problems, all done before")
        if recorded != len(store):  # a kill came between the last tree and its record
            record(0.0, len(store), {})
        return [_stored(store, problem) for problem in problems]
    with progress.loading("the model"):
        searcher = make_searcher()
    started = time.perf_counter()
    try:
        with progress.stage(title, len(problems), len(problems) - len(missing)) as stage:

            def on_failed(tree: Tree, error: ProblemError) -> None:
                failed[tree.problem.id] = str(error)
                stage.advance(tree.budget.total)

            def on_done(tree: Tree) -> None:
                store.append(tree)
                found[tree.problem.id] = tree
                stage.advance(tree.budget.total)

            trees = (Tree(problem, seed=seed, budget=Budget(budget)) for problem in missing)
            search_all(trees, searcher, task, in_flight, on_done, on_failed)
    finally:
        record(time.perf_counter() - started, len(store), failed)
    if len(failed) == len(problems):
        raise GradatimError(
            f"{title}: all of {len(problems):,} problems failed; the first: {next(iter(failed.values()))}"
        )
    done = [problem for problem in problems if problem.id not in failed]
    return [found.get(problem.id) or _stored(store, problem) for problem in done]


def search_all(
    trees: Iterable[Tree],
    searcher: Searcher,
    task: Task,
    in_flight: int,
    on_done: Callable[[Tree], None],
    on_failed: Callable[[Tree, ProblemError], None],
) -> list[Tree]:
    """Search, grade and value trees, many at a time; what the models cached of a tree is dropped when it is done.

    Args:
        trees: to be searched.
        searcher: searches them.
        task: grades them.
        in_flight: trees at the same time.
        on_done: called with each tree that is finished.
        on_failed: called with each tree whose search failed alone, and the error.

    Returns:
        The trees that were finished, in their order.
    """

    async def search(tree: Tree) -> None:
        await searcher.search(tree)
        await grade_nodes(tree.leaves(), task)
        if searcher.finish is not None:
            await searcher.finish(tree)

    def done(tree: Tree) -> None:
        on_done(tree)
        searcher.release(tree)

    def failed(tree: Tree, error: ProblemError) -> None:
        searcher.release(tree)
        on_failed(tree, error)

    async def work() -> list[Tree]:
        try:
            return await search_many(trees, search, in_flight, done, failed)
        finally:
            await searcher.policy.close()

    return run_to_end(work())


def _stored(store: TreeStore, problem: Problem) -> Tree:
    tree = store.get(problem.id)
    assert tree is not None, "every problem was searched or stored"
    return tree
