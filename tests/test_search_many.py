"""Many searches at once: bounded, independent of each other, and nothing finished is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from every_search import EVERY_SEARCH
from gradatim.errors import GradatimError
from gradatim.search import search_many
from gradatim.tree import Tree
from scripted_countdown import (
    TASK,
    DelayedPolicy,
    arbitrary_scorer,
    new_tree,
    problems,
    random_moves,
)


@pytest.mark.parametrize("name", EVERY_SEARCH)
@pytest.mark.parametrize("limit", [None, 400])
def test_results_do_not_depend_on_how_many_run_at_once(name: str, limit: int | None) -> None:
    def run(in_flight: int, seed: int) -> list[dict[str, Any]]:
        policy = DelayedPolicy(random_moves(noise=0.1), seed)

        async def search(tree: Tree) -> None:
            await EVERY_SEARCH[name](tree, policy, arbitrary_scorer(), answer=TASK.answer)

        trees = [new_tree(problem, seed=3, limit=limit) for problem in problems(4)]
        return [tree.to_json() for tree in asyncio.run(search_many(trees, search, in_flight))]

    assert run(1, 0) == run(3, 1) == run(64, 2)


def test_trees_are_taken_when_a_place_is_free_and_handed_over_when_done() -> None:
    running: set[str] = set()
    most: list[int] = []
    done: list[str] = []

    def supply() -> Iterator[Tree]:
        for problem in problems(10):
            assert len(running) < 3
            yield new_tree(problem)

    async def search(tree: Tree) -> None:
        running.add(tree.problem.id)
        most.append(len(running))
        await asyncio.sleep(0)
        running.remove(tree.problem.id)

    trees = asyncio.run(search_many(supply(), search, 3, lambda tree: done.append(tree.problem.id)))
    assert [tree.problem.id for tree in trees] == [problem.id for problem in problems(10)]
    assert sorted(done) == sorted(tree.problem.id for tree in trees)
    assert max(most) == 3


def test_an_exception_stops_the_rest_and_loses_nothing_that_was_finished() -> None:
    done: list[str] = []
    cancelled: list[str] = []
    started: list[str] = []
    names = [problem.id for problem in problems(10)]

    async def search(tree: Tree) -> None:
        number = names.index(tree.problem.id)
        started.append(tree.problem.id)
        if number == 4:
            await asyncio.sleep(0)
            raise GradatimError("the server is gone")
        if number > 1:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(tree.problem.id)
                raise

    with pytest.raises(GradatimError, match="the server is gone") as caught:
        asyncio.run(
            search_many([new_tree(p) for p in problems(10)], search, 3, lambda tree: done.append(tree.problem.id))
        )
    assert caught.value.__notes__ == [f"while searching problem {names[4]!r}"]
    assert done == names[:2]
    assert sorted(cancelled) == sorted(names[2:4])
    assert started == names[:5]


def test_an_exception_of_the_receiver_stops_the_search() -> None:
    def full(tree: Tree) -> None:
        raise GradatimError("the disk is full")

    with pytest.raises(GradatimError, match="the disk is full"):
        asyncio.run(search_many([new_tree()], lambda tree: asyncio.sleep(0), 3, full))


def test_nothing_to_search_and_no_place_to_search_in() -> None:
    assert asyncio.run(search_many([], lambda tree: asyncio.sleep(0))) == []
    with pytest.raises(GradatimError, match="at least one"):
        asyncio.run(search_many([new_tree()], lambda tree: asyncio.sleep(0), 0))


def test_ctrl_c_cancels_and_what_was_finished_has_been_handed_over() -> None:
    program = textwrap.dedent(
        """
        import asyncio
        from gradatim.search import search_many
        from gradatim.tree import Problem, Tree

        async def search(tree):
            if tree.problem.id != "0":
                await asyncio.sleep(60)

        trees = [Tree(Problem(str(number), "x")) for number in range(3)]
        asyncio.run(search_many(trees, search, 2, lambda tree: print("done", tree.problem.id, flush=True)))
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "done 0\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out == ""
    assert "KeyboardInterrupt" in err
    assert process.returncode != 0
