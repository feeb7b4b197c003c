"""Many problems at once, so that a policy always has a full batch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator

from gradatim.errors import GradatimError, ProblemError
from gradatim.tree import Tree


async def search_many(
    trees: Iterable[Tree],
    search: Callable[[Tree], Awaitable[object]],
    in_flight: int = 64,
    on_done: Callable[[Tree], None] | None = None,
    on_failed: Callable[[Tree, ProblemError], None] | None = None,
) -> list[Tree]:
    """Search many trees, at most ``in_flight`` of them at a time; a new one starts whenever one is finished.

    A tree is handed to ``on_done`` (to be stored, or to move a progress bar) the moment it is finished. A search that
    raises a :class:`~gradatim.errors.ProblemError` (a server's answer stays malformed, a prompt is too long) fails
    alone: the others go on, and its tree is handed to ``on_failed``, or the first such error is raised when all others
    are finished. When a search or ``on_done`` raises anything else, or the caller is cancelled (Ctrl-C under
    ``asyncio.run``), no further tree starts, running searches are cancelled and awaited, and the first exception is
    raised with the problem's id as a note: what was finished has been handed over and only what was running is lost.

    Args:
        trees: taken one by one as places fall free, so that they may be made on the way.
        search: one search over one tree, e.g. ``lambda tree: Beam()(tree, policy, scorer)``.
        in_flight: how many problems are searched at the same time.
        on_done: called with each finished tree, in the order in which they finish.
        on_failed: called with each tree whose search failed alone, and the error; it does not raise.

    Returns:
        The trees that were finished, in the order given.

    Raises:
        ProblemError: if searches failed and there is no ``on_failed``; a note says how many.
        GradatimError: if ``in_flight`` is below 1; also whatever ``search`` or ``on_done`` raises.
    """
    if in_flight < 1:
        raise GradatimError(f"at least one problem must be in flight, got {in_flight}")
    searched: list[Tree] = []
    failed: dict[Tree, ProblemError] = {}

    def fail(tree: Tree, error: ProblemError) -> None:
        failed[tree] = error
        if on_failed is not None:
            on_failed(tree, error)

    waiting = iter(trees)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(_work(waiting, search, searched, on_done, fail))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    if failed and on_failed is None:
        first = next(iter(failed.values()))
        first.add_note(f"{len(failed)} of {len(searched)} problems failed; the others are finished")
        raise first
    return [tree for tree in searched if tree not in failed]


async def _work(
    waiting: Iterator[Tree],
    search: Callable[[Tree], Awaitable[object]],
    searched: list[Tree],
    on_done: Callable[[Tree], None] | None,
    fail: Callable[[Tree, ProblemError], None],
) -> None:
    for tree in waiting:
        searched.append(tree)
        try:
            try:
                await search(tree)
            except ProblemError as error:
                error.add_note(f"while searching problem {tree.problem.id!r}")
                fail(tree, error)
                continue
            if on_done is not None:
                on_done(tree)
        except Exception as error:
            error.add_note(f"while searching problem {tree.problem.id!r}")
            raise
