"""The code task: layouts, extraction, verdicts, and programs that try to pass without being right."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.tasks.base import Task
from gradatim.tasks.code import Code, extract_program
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import Problem
from gradatim_sandbox import SandboxError, SandboxLimits, run, sandbox_layers
from json_lines import write_lines

try:
    sandbox_layers()
except SandboxError as error:
    pytest.skip(str(error), allow_module_level=True)

FUNCTION = {
    "task_id": "HumanEval/x",
    "prompt": 'from typing import List\n\n\ndef twice(value):\n    return 2 * value\n\n\n'
    'def total(numbers: List[int]) -> int:\n    """ Twice the sum.\n    >>> total([1, 2])\n    6\n    """\n',
    "entry_point": "total",
    "canonical_solution": "    return twice(sum(numbers))\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    for size in range(3):\n"
    "        assert candidate([1] * size) == twice(size)\n    assert candidate([1, 2]) == 6\n",
}  # fmt: skip
ASSERTS = {
    "text": "Write a function to find the shared elements of two lists.",
    "code": "def shared(a, b):\r\n  return tuple(sorted(set(a) & set(b)))",
    "test_setup_code": "",
    "test_list": ["assert shared([3, 4], [4, 5]) == (4,)", "assert sorted(shared([1], [2])) == []"],
}
INPUTS = {
    "question": "Add the two numbers.",
    "inputs": ["1 2\n", "3 -3\n", "10 20\n"],
    "outputs": ["3\n", "0", "30 \n\n"],
    "solution": "print(sum(map(int, input().split())))\n",
}
LIMITS = SandboxLimits(cpu_seconds=1, wall_seconds=20, memory_bytes=2**28)


def problem_of(tmp_path: Path, record: dict[str, Any], **options: Any) -> tuple[Code, Problem]:
    path = write_lines(tmp_path / "test.jsonl", [record])
    task = Code(source=str(path.parent), splits={"test": "test"}, limits=LIMITS, **options)
    return task, task.problems("test")[0]


# Loading


def test_the_layouts_become_problems(tmp_path: Path) -> None:
    write_lines(tmp_path / "test.jsonl", [FUNCTION, ASSERTS, INPUTS])
    task = Code(source=str(tmp_path), splits={"test": "test"})
    assert isinstance(task, Task)
    function, asserts, inputs = task.problems("test")
    assert [problem.id for problem in (function, asserts, inputs)] == ["code/test/1", "code/test/2", "code/test/3"]
    assert function.prompt == FUNCTION["prompt"]
    assert asserts.prompt == '"""\n' + "\n".join([ASSERTS["text"], *ASSERTS["test_list"]]) + '\n"""\n'  # type: ignore[misc]
    assert inputs.prompt == '"""\nAdd the two numbers.\n"""\n'
    assert [problem.data["layout"] for problem in (function, asserts, inputs)] == ["function", "asserts", "inputs"]
    for problem in (function, asserts, inputs):
        assert json.loads(json.dumps(problem.data)) == problem.data
        assert task.check(problem, problem.data["solution"]).reason == "correct"


def test_a_template_may_show_the_tests(tmp_path: Path) -> None:
    template = "Task: {question}\nIt must pass:\n{tests}\nProgram:\n"
    task, problem = problem_of(tmp_path, ASSERTS, template=template)
    assert problem.prompt.startswith("Task: Write a function")
    assert "\nassert shared([3, 4], [4, 5]) == (4,)\nassert sorted" in problem.prompt
    going_on = ASSERTS["code"] + "\nTask: Write another one.\ndef broken("  # type: ignore[operator]
    assert task.check(problem, going_on).reason == "correct"


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"prompt": "x"}, "has no tests"),
        ({**FUNCTION, "entry_point": "other"}, "does not define its entry point 'other'"),
        ({**ASSERTS, "test_list": []}, "no text in the field 'test_list'"),
        ({**ASSERTS, "test_list": [1]}, "no list of texts in the field 'test_list'"),
        ({"test_list": ["assert True"]}, "has no question"),
        ({**INPUTS, "outputs": ["3"]}, "has 3 inputs but 1 outputs"),
    ],
)
def test_bad_records_are_named_with_their_line(tmp_path: Path, record: dict[str, Any], sentence: str) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [*[{**ASSERTS, "text": str(n)} for n in range(30)], record])
    with pytest.raises(GradatimError, match=f"line 31 of '.*mine.jsonl' .*{sentence}"):
        Code(source=str(path)).problems("train")
    with pytest.warns(UserWarning, match="skipped 1 bad records of .*mine.jsonl': 31"):
        assert Code(source=str(path), on_bad_line="skip").problems("train")


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GradatimError, match="reward must be 'all' or 'fraction', got 'some'"):
        Code(source=str(tmp_path), reward="some")  # type: ignore[arg-type]
    with pytest.raises(GradatimError, match="exactly once"):
        Code(source=str(tmp_path), template="no question")
    with pytest.raises(GradatimError, match=r"limits\.threads must be greater than 0, got 0"):
        Code(source=str(tmp_path), limits={"threads": 0})  # type: ignore[arg-type]
    with pytest.raises(GradatimError, match="limits has no option 'thread'; did you mean 'threads'"):
        Code(source=str(tmp_path), limits={"thread": 8})  # type: ignore[arg-type]


def test_a_machine_without_a_sandbox_is_an_error_for_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [{**ASSERTS, "text": str(n)} for n in range(30)])
    task = Code(source=str(path))
    problem = task.problems("train", 1)[0]
    run._best_isolation.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    for ask in (lambda: task.problems("train"), lambda: task.check(problem, "def shared(a, b):\n    return ()\n")):
        with pytest.raises(GradatimError, match="programs can only be run safely on Linux"):
            ask()


# Steps and extraction


@given(st.text(alphabet="ab :#\n\t`", max_size=60))
def test_steps_join_to_the_text(text: str) -> None:
    for string in ("\n", "\n\n"):
        task = Code(boundary=Delimiter(at=(string,)))
        steps = task.boundary.split(text)
        assert "".join(steps) == text
        assert all(steps)


def test_steps_are_lines_or_blocks(tmp_path: Path) -> None:
    text = "import math\n\n\ndef f(x):\n    return x\n"
    lines, _ = problem_of(tmp_path, INPUTS)
    assert lines.boundary.split(text) == ["import math\n", "\n\ndef f(x):\n", "    return x\n"]
    blocks, _ = problem_of(tmp_path, INPUTS, boundary={"delimiter": {"at": ["\n\n"]}})
    assert blocks.boundary.split(text) == ["import math\n\n", "\ndef f(x):\n    return x\n"]


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("x = 1\n", "x = 1\n"),
        ("So:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```python\nx = 1\n```\nBetter:\n```py\nx = 2\n```\nIt prints\n```\n2\n```\n", "x = 2\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1\n", "x = 1\n"),
        ("```Python title=a\nx = 1\n```", "x = 1\n"),
        ("```json\n{}\n```", "```json\n{}\n```"),
        ("```python\n```", "```python\n```"),
        (" \n\t", None),
        ("", None),
    ],
)
def test_extraction(text: str, program: str | None) -> None:
    assert extract_program(text) == program


# Verdicts


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("    return twice(sum(numbers))\n\n\ndef unfinished(", "correct"),
        ("```python\ndef total(numbers):\n    return 2 * sum(numbers)\n```", "correct"),
        ("```python\nfrom math import fsum\n\ndef total(n: List[int]):\n    return twice(fsum(n))\n```", "correct"),
        ("    return sum(numbers)\n", "wrong answer in test 1"),
        ("    return 2 * len(numbers)\n", "wrong answer in test 2"),
        ("    return missing\n", "NameError in test 1"),
        ("    x = 1\n    return (\n", "syntax error line 2"),
        ("    raise SystemExit\n", "SystemExit in test 1"),
        ("    import os; os._exit(0)\n", "the program ended in test 1"),
        ("    while True: pass\n", "time limit in test 1"),
        ("    return [0] * 10**9\n", "memory limit in test 1"),
        ("   ", "no code"),
    ],
)
def test_a_function_is_called_by_the_tests(tmp_path: Path, text: str, reason: str) -> None:
    task, problem = problem_of(tmp_path, FUNCTION)
    verdict = task.check(problem, text)
    assert verdict.reason == reason
    assert verdict.reward == (reason == "correct")
    assert (task.answer(problem, text) is None) == (reason == "no code")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a, b = map(int, input().split())\nprint(a + b)", "correct"),
        ("a, b = map(int, input().split())\nprint(abs(a) + abs(b))", "wrong answer in test 2"),
        ("a, b = map(int, input().split())\nprint(a + b if a < 9 else 1 // 0)", "ZeroDivisionError in test 3"),
        ("print(3)\nimport os; os.abort()", "crash in test 1"),
        ("while True: print(3)", "output limit in test 1"),
        ("x = 1\nprint((", "syntax error line 2"),
        ("eval('(')", "SyntaxError in test 1"),
        ("exit(1)", "failure in test 1"),
    ],
)
def test_a_program_answers_inputs(tmp_path: Path, text: str, reason: str) -> None:
    task, problem = problem_of(tmp_path, INPUTS)
    verdict = task.check(problem, text)
    assert verdict.reason == reason
    assert verdict.reward == (reason == "correct")


def test_the_reward_may_be_the_share_of_tests(tmp_path: Path) -> None:
    task, problem = problem_of(tmp_path, INPUTS, reward="fraction")
    verdict = task.check(problem, "a, b = map(int, input().split())\nprint(abs(a) + abs(b))")
    assert (verdict.reward, verdict.reason) == (2 / 3, "wrong answer in test 2; 2 of 3 passed")
    assert verdict.correct is False
    task, problem = problem_of(tmp_path, ASSERTS, reward="fraction")
    verdict = task.check(problem, "def shared(a, b): return ()")
    assert (verdict.reward, verdict.reason) == (0.5, "wrong answer in test 1; 1 of 2 passed")
    assert task.check(problem, "import os\ndef shared(a, b): os._exit(0)").reward == 0
    task, problem = problem_of(tmp_path, FUNCTION, reward="fraction")
    assert task.check(problem, "    return twice(sum(numbers)) if numbers != [1, 2] else 0").reward == 0.5


@pytest.mark.parametrize("text", ["\0", "\ud800", "(" * 5000, "-" * 5000 + "1", "9" * 5000, "```", "def shared", "\\"])
def test_no_text_raises(tmp_path: Path, text: str) -> None:
    task, problem = problem_of(tmp_path, ASSERTS)
    assert task.check(problem, text).reward == 0


# Values and objects between program and tests


def test_values_come_back_as_they_are(tmp_path: Path) -> None:
    tests = [
        "assert values() == [None, True, 1, -2.5, 'ä\\ud800', (1, [2]), {1, 2}, {'a': {3: (4,)}}, b'x', 1 + 2j]",
        "assert [type(value) for value in values()[5:8]] == [tuple, set, dict]",
        "assert echo(2 ** 20000) == 2 ** 20000 and echo(-(2 ** 64)) == -(2 ** 64)",
        "assert math.isnan(echo(float('nan'))) and echo(float('inf')) == math.inf",
        "assert echo(Fraction(1, 3)) == Fraction(1, 3) and echo(deque([1], 2)) == deque([1])",
        "assert echo(range(3)) == range(3) and echo(date(2024, 2, 29)) == date(2024, 2, 29)",
        "assert list(count(3)) == [0, 1, 2]",
        "items = [3, 1, 2]\norder(items)\nassert items == [1, 2, 3]",
        "assert apply(lambda value: value + 1, 4) == 5 and apply(sum, iter([1, 2])) == 3",
        "root = Node(1)\nroot.next = Node(2)\nassert length(root) == 2 and root.next.value == 2 and root == root",
        "try:\n    fail()\nexcept ValueError as error:\n    assert str(error) == 'no'\nelse:\n    assert False",
    ]
    program = """
def values(): return [None, True, 1, -2.5, 'ä\\ud800', (1, [2]), {1, 2}, {'a': {3: (4,)}}, b'x', 1 + 2j]
def echo(value): return value
def count(n): yield from range(n)
def order(items): items.sort()
def apply(function, value): return function(value)
def fail(): raise ValueError('no')
class Node:
    def __init__(self, value): self.value, self.next = value, None
def length(node): return 0 if node is None else 1 + length(node.next)
"""
    record = {
        "text": "Many things.",
        "test_list": tests,
        "test_imports": [
            "from collections import deque",
            "from datetime import date",
            "from fractions import Fraction",
        ],
    }
    task, problem = problem_of(tmp_path, record)
    assert task.check(problem, program).reason == "correct"
    assert task.check(problem, program.replace("yield from range(n)", "yield n")).reason == "wrong answer in test 7"


@pytest.mark.parametrize(
    "program",
    [
        # Says that it passed, in every way it knows.
        "import os, sys\nprint('correct')\nfor fd in range(64):\n    try: os.write(fd, b'{\"passed\": 9}\\n')\n"
        "    except OSError: pass\nos._exit(0)",
        # Speaks the protocol itself.
        "import json, os\nfor message in [{'names': ['shared'], 'lent': 0}, *[{'value': True}] * 99]:\n"
        "    os.write(4, json.dumps(message).encode() + b'\\n')\nos._exit(0)",
        # Equal to everything.
        "class Chameleon(tuple):\n    def __eq__(self, other): return True\n    def __iter__(self): return iter(())\n"
        "def shared(a, b): return Chameleon()",
        "class Chameleon:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\n"
        "def shared(a, b): return Chameleon()",
        # Replaces what the tests use.
        "import builtins\nbuiltins.sorted = sorted = lambda items: []\nbuiltins.tuple = list\n_test = check = print\n"
        "def shared(a, b): return []",
        # Looks for the expected value in whoever calls.
        "import sys, gc\ndef shared(a, b):\n    frame = sys._getframe()\n    while frame:\n"
        "        for value in frame.f_locals.values():\n            if value == (4,): return value\n"
        "        frame = frame.f_back\n    return next(o for o in gc.get_objects() if o == (4,) and o is not a)",
    ],
)  # fmt: skip
def test_a_program_cannot_pass_but_by_right_values(tmp_path: Path, program: str) -> None:
    task, problem = problem_of(tmp_path, ASSERTS)
    assert task.check(problem, program).reward == 0


def test_the_tests_are_not_in_the_programs_reach(tmp_path: Path) -> None:
    record = {**ASSERTS, "test_list": ["assert shared(lambda: 1, []) == 'nothing found'"]}
    task, problem = problem_of(tmp_path, record)
    program = """
def shared(function, rest):
    for name in ("__globals__", "__code__", "func_globals", "f_back"):
        try:
            return getattr(function, name)
        except (AttributeError, PermissionError):
            pass
        try:
            return function._peer.ask("get", function._number, [name], {})
        except PermissionError:
            pass
    return "nothing found"
"""
    assert task.check(problem, program).reason == "correct"
