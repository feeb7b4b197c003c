"""Judging a program by tests: calls of its functions, or what it prints for given inputs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from gradatim_sandbox import Channel, Execution, SandboxLimits, run_program

_LIMITS = {"time limit", "memory limit", "output limit", "file limit"}
_FEWEST_OPEN_FILES = 16  # the tests' own side needs a few


@dataclass(frozen=True, slots=True)
class TestResults:
    """What became of a program's tests.

    Attributes:
        passed: how many tests passed.
        tests: of how many; at least 1.
        reason: ``"correct"``, or what went wrong in the first test that failed.
        syntax_error_line: the line of the program's syntax error, if it has one.
    """

    passed: int
    tests: int
    reason: str
    syntax_error_line: int | None = None

    __test__ = False  # nothing for pytest


def run_function_tests(
    program: str, *, setup: str, tests: Sequence[str], call: str | None, limits: SandboxLimits
) -> TestResults:
    """Run tests that call a program's functions; each ``assert`` is a test.

    The tests run in a sandbox of their own, and the program's functions answer from another one, so that nothing the
    program does can make a test pass but a right return value (see :mod:`gradatim.tasks.remote_calls`).

    Args:
        program: a Python module. What it prints is ignored.
        setup: what the tests need before them: imports and helper functions that are not the program's.
        tests: sources with ``assert`` statements.
        call: where the tests define ``check(candidate)``: the function that it is called with.
        limits: for the program over all tests, and once more for the tests.

    Raises:
        SandboxError: if this machine cannot enforce the sandbox.
    """
    order = json.dumps({"setup": setup, "tests": list(tests), "call": call})
    (program_reads, tests_write), (tests_read, program_writes) = os.pipe(), os.pipe()
    with ThreadPoolExecutor(1) as pool:
        program_run = pool.submit(
            run_program,
            _side("serve_program"),
            stdin=program,
            limits=limits,
            channel=Channel(program_reads, program_writes),
        )
        tests_run = run_program(
            _side("run_tests"),
            stdin=order,
            limits=replace(limits, open_files=max(limits.open_files, _FEWEST_OPEN_FILES)),
            channel=Channel(tests_read, tests_write),
        )
        return _results(tests_run, program_run.result())


def run_input_tests(
    program: str, *, inputs: Sequence[str], outputs: Sequence[str], limits: SandboxLimits, stop_at_failure: bool
) -> TestResults:
    """Run a program once for each input and compare what it prints with the output.

    White space at the ends of lines and empty lines at the end do not count.

    Args:
        program: a Python program.
        inputs: its standard input in each test.
        outputs: what it should print.
        limits: for each run.
        stop_at_failure: whether to leave out the tests after one that failed.

    Raises:
        SandboxError: if this machine cannot enforce the sandbox.
    """
    passed, reason = 0, None
    for number, (given, wanted) in enumerate(zip(inputs, outputs, strict=True), 1):
        execution = run_program(program, stdin=given, limits=limits)
        if execution.outcome == "finished" and _printed(execution.stdout) == _printed(wanted):
            passed += 1
            continue
        error = execution.stderr.strip().rpartition("\n")[2]
        line = _syntax_error_line(execution) if execution.outcome == "failed" else None
        if line is not None:
            return TestResults(0, len(inputs), "syntax error", line)
        if reason is None:
            what = {"finished": "wrong answer", "failed": error.partition(":")[0] or "failure", "crashed": "crash"}
            reason = f"{what.get(execution.outcome, execution.outcome)} in test {number}"
        if stop_at_failure:
            break
    return TestResults(passed, max(1, len(inputs)), reason or "correct")


@cache
def _side(function: str) -> str:
    """The first program of a sandbox: the file of remote calls, and a call of one of its sides."""
    source = Path(__file__).with_name("remote_calls.py").read_text(encoding="utf-8")
    return f"{source}\n\n{function}()\n"


def _results(tests_run: Execution, program_run: Execution) -> TestResults:
    if tests_run.outcome != "finished":
        error = tests_run.stderr.strip().rpartition("\n")[2]
        reason = tests_run.outcome if tests_run.outcome in _LIMITS else f"the tests do not run: {error[:200]}"
        return TestResults(0, 1, reason)
    report: dict[str, Any] = json.loads(tests_run.stdout)
    tests = max(1, report["tests"])
    if report["obstacle"] is not None:
        return _obstacle(report["obstacle"], tests)
    if report["failure"] is not None:
        number, what = report["failure"]
        what = "memory limit" if what == "MemoryError" else what
        return TestResults(report["passed"], tests, f"{what} in test {number}")
    if report["ended"]:
        what = program_run.outcome if program_run.outcome in _LIMITS else "the program ended"
        where = "before the tests" if report["reached"] is None else f"in test {report['reached']}"
        # Tests that catch everything may have passed without the program.
        return TestResults(min(report["passed"], tests - 1), tests, f"{what} {where}")
    return TestResults(report["passed"], tests, "correct")


def _obstacle(obstacle: Mapping[str, Any], tests: int) -> TestResults:
    """Why no test ran. The program may have said it itself, so it may be anything; none of it is success."""
    if "missing" in obstacle:
        return TestResults(0, tests, f"no function {str(obstacle['missing'])[:200]!r}")
    if "setup" in obstacle:
        return TestResults(0, tests, f"{str(obstacle['setup'])[:200]} in the tests' setup")
    if isinstance(line := obstacle.get("syntax error"), int):
        return TestResults(0, tests, "syntax error", line)
    error = obstacle.get("error")
    if isinstance(error, list) and error and error[0] == "MemoryError":
        return TestResults(0, tests, "memory limit before the tests")
    what = ": ".join(map(str, error))[:200] if isinstance(error, list) else "the program ended"
    return TestResults(0, tests, f"{what} before the tests")


def _syntax_error_line(execution: Execution) -> int | None:
    """The line of the program's own syntax error; ``None`` for one that it met while it ran."""
    lines = execution.stderr.splitlines()
    if not lines or not lines[0].lstrip().startswith('File "') or "program.py" not in lines[0]:
        return None
    number = lines[0].rpartition("line ")[2]
    return int(number) if number.isdecimal() else None


def _printed(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]
