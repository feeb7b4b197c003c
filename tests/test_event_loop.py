"""Synchronous functions work inside a running event loop, and what blocks does not hold it up."""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import io
import re
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from rich.console import Console
from typer.testing import CliRunner

import gradatim
from gradatim.cli.main import app
from gradatim.errors import GradatimError
from gradatim.event_loop import run_to_end, without_blocking
from gradatim.part import part
from gradatim.run import Progress, run_recipe
from gradatim.scorers.rollouts import RolloutScorer
from gradatim.search import Mcts
from gradatim.tasks.base import Verdict, grade, grade_nodes
from gradatim.tasks.countdown import Countdown
from gradatim.tree import Problem
from scripted_countdown import new_tree, random_policy
from small_runs import small_recipe

Result = TypeVar("Result")
SLOW = 0.2  # seconds of one verification
_variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


def inside_a_loop(function: Callable[[], Result]) -> Result:
    """What a notebook's cell does: call a synchronous function while an event loop runs in this thread."""

    async def cell() -> Result:
        return function()

    return asyncio.run(cell())


@pytest.mark.parametrize("where", [inside_a_loop, lambda function: function()])
def test_a_coroutine_is_run_to_its_end_wherever_it_is_called(
    where: Callable[[Callable[[], str]], str],
) -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return _variable.get()

    async def fail() -> str:
        raise GradatimError("no")

    _variable.set("of the caller")
    assert where(lambda: run_to_end(work())) == "of the caller"
    with pytest.raises(GradatimError, match="no"):
        where(lambda: run_to_end(fail()))


def test_ctrl_c_cancels_what_runs_beside_and_waits_for_it() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            threading.Timer(0.05, _thread.interrupt_main).start()
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)
            ended.append("cleaned up")

    async def cell() -> None:
        run_to_end(work())

    loop = asyncio.new_event_loop()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        loop.close()
    assert ended == ["cleaned up"]
    assert time.monotonic() - began < 10


def test_a_run_and_a_command_work_inside_a_loop(tmp_path: Path) -> None:
    recipe = small_recipe(
        problems={"train": 0, "test": 2},
        search=None,
        judge=None,
        objective=None,
        evaluation={"samples": 2, "pass_at": [1], "best_of": [], "majority": [], "search": [], "greedy": False},
    )
    report = inside_a_loop(lambda: run_recipe(recipe, tmp_path, progress=Progress(Console(file=io.StringIO()))))
    assert report["base"]["problems"] == 2
    arguments = ["solve", "Make 46 from 3 5 7 8", "--policy", "shipped:countdown", "--set", "n=2"]
    result = inside_a_loop(lambda: CliRunner().invoke(app, arguments))
    assert result.exit_code == 0, result.output


def test_no_other_place_starts_an_event_loop() -> None:
    package = Path(str(gradatim.__file__)).parent
    places = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in package.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"(asyncio\.run|run_until_complete|Runner)\(", line)
    ]
    assert [place.split(":")[0] for place in places] == ["event_loop.py"] * 2


# What blocks


@part
class SlowTask(Countdown):
    """Countdown with a verifier that waits, as one does that asks a sandbox."""

    def check(self, problem: Problem, text: str) -> Verdict:
        time.sleep(SLOW)
        return super().check(problem, text)


def ticks_during(work: Callable[[], Awaitable[object]]) -> int:
    """How often a loop comes round, at hundred times a second, while ``work`` (a coroutine function) runs in it."""

    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        await work()
        ticking.cancel()
        return ticks

    return asyncio.run(main())


def test_the_loop_goes_on_while_a_verification_runs() -> None:
    task, tree = SlowTask(), new_tree()
    asyncio.run(random_policy().extend([tree.root], 3, steps=None))
    leaves = [leaf for leaf in tree.leaves() if not leaf.open]
    assert ticks_during(lambda: grade_nodes(leaves, task)) > 5 * len(leaves)
    assert all(leaf.reward is not None for leaf in leaves)
    fresh = new_tree()
    scorer = RolloutScorer(random_policy(), task, rollouts=3)
    assert ticks_during(lambda: scorer.score([fresh.root])) > 5
    assert 0.0 <= fresh.root.scores[scorer.name] <= 1.0


def test_the_loop_goes_on_while_a_search_is_guided_by_rollouts() -> None:
    policy, tree = random_policy(), new_tree()
    search, guide = Mcts(simulations=3, branch=2), RolloutScorer(policy, SlowTask(), rollouts=1)
    assert ticks_during(lambda: search(tree, policy, guide)) > 5


def test_blocking_functions_run_one_after_the_other_and_their_errors_come_through() -> None:
    running: list[int] = []

    def block(number: int) -> int:
        running.append(number)
        assert len(running) == 1
        time.sleep(0.01)
        running.remove(number)
        if number == 3:
            raise GradatimError("three")
        return number

    async def main() -> list[int | BaseException]:
        return await asyncio.gather(*(without_blocking(block, number) for number in range(5)), return_exceptions=True)

    results = asyncio.run(main())
    assert [each for each in results if isinstance(each, int)] == [0, 1, 2, 4]
    assert isinstance(results[3], GradatimError)


@part
class Delegating(Countdown):
    """Countdown as another task judges it."""

    def check(self, problem: Problem, text: str) -> Verdict:
        return run_to_end(Countdown().verify(problem, text))


def test_a_verification_may_wait_for_another() -> None:
    tree = new_tree()
    asyncio.run(random_policy().extend([tree.root], 3, steps=None))
    grade(tree, Delegating())
    assert all(leaf.reward is not None for leaf in tree.leaves() if not leaf.open)
