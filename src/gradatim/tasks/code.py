"""Programming problems with tests, which every solution must pass in the sandbox.

Three layouts of records are read, each by its own fields:

- ``prompt``, ``test``, ``entry_point``: the beginning of a function, and a function ``check`` that tests it (HumanEval:
  Chen et al., 2021, arXiv:2107.03374);
- ``text`` (or ``prompt``), ``test_list``: a task in words, and ``assert`` statements (MBPP: Austin et al., 2021,
  arXiv:2108.07732); ``test_setup_code`` and ``test_imports`` come before them;
- ``question`` (or ``prompt``, ``text``, ``description``), ``inputs``, ``outputs``: a task in words, and what the
  program prints for each standard input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.records import MalformedRecordError, Record, text_field
from gradatim.tasks.base import Verdict
from gradatim.tasks.code_tests import TestResults, run_function_tests, run_input_tests
from gradatim.tasks.from_records import RecordTask
from gradatim.tasks.templates import Template
from gradatim.text.solution_end import NextProblem, SolutionEnd
from gradatim.tree import Problem
from gradatim_sandbox import SandboxError, SandboxLimits, sandbox_layers

__all__ = ["Code", "TEMPLATES", "extract_program"]

TEMPLATES = {
    "function": "{question}",
    "asserts": '"""\n{question}\n{tests}\n"""\n',
    "inputs": '"""\n{question}\n"""\n',
}
"""The default prompt of each layout: the beginning of a program, so that what a policy writes next is its next line."""

_QUESTIONS = ("question", "prompt", "text", "description")
_SOLUTIONS = ("canonical_solution", "code", "solution")
_FENCED = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_PYTHON = ("python", "python3", "py")
# A policy that has finished a function's body goes on with whatever comes next in a file.
_AFTER_THE_BODY = re.compile(r"^(?:class |def |async def |if |print\(|assert |#|@|```)", re.MULTILINE)

_NEXT_DOCSTRING = re.compile(r'^"""', re.MULTILINE)


@part
class Code(RecordTask):
    """Python programs that must pass tests, run in a sandbox (MBPP, HumanEval and their like).

    A problem has no ``answer``; its ``data`` holds the ``question``, the ``layout`` (a key of ``TEMPLATES``), the tests
    in the layout's own fields, and the reference ``solution`` if the record has one.
    """

    source: str = "google-research-datasets/mbpp"
    template: str | None = None
    """The prompt, with `{question}` in the question's place and, if wanted, `{tests}` in that of the `assert`
    statements; `null` is that of the record's layout."""
    reward: Literal["all", "fraction"] = "all"
    """`all` gives 1 where all tests pass, `fraction` the share of tests that pass."""
    limits: SandboxLimits = SandboxLimits()
    """What a program may use: over all tests that call its functions, or for each input."""

    def __post_init__(self) -> None:
        _ = self._templates  # a template without its places is refused now

    @cached_property
    def _templates(self) -> dict[str, Template]:
        return {layout: _template(self.template or text) for layout, text in TEMPLATES.items()}

    @property
    def solution_end(self) -> SolutionEnd:
        return SolutionEnd(box=_first_block_end, next_problem=_after_the_program)

    @property
    def on_command_line(self) -> None:
        return None

    def ask(self, text: str) -> Problem:
        raise GradatimError("a program is judged by its tests, so a problem needs some: put it into the task's source")

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``"train"``, ``"validation"`` or ``"test"``, always the same.

        Raises:
            GradatimError: if this machine cannot run programs safely, the split is unknown or empty, or the source is
                missing or malformed.
        """
        with _sandbox():
            sandbox_layers()  # now, not at the first solution
        return super().problems(split, count)

    def solution(self, problem: Problem, text: str) -> str:
        return self._templates[problem.data["layout"]].first_solution(problem, text)

    def answer(self, problem: Problem, text: str) -> str | None:
        """The program as it was written (see :func:`extract_program`), without what follows a function's body."""
        return self._program(problem, text)[1]

    def _program(self, problem: Problem, text: str) -> tuple[str, str | None]:
        """What comes before a solution's program, and the program."""
        code = extract_program(self.solution(problem, text))
        return ("", code) if code is None or problem.data["layout"] != "function" else _complete(problem.data, code)

    def check(self, problem: Problem, text: str) -> Verdict:
        """Run the program in ``text`` against the problem's tests, in the sandbox.

        A program that asks neither clock nor chance gets the same verdict every time, as long as it stays clear of its
        limits. Never raises on any text.
        """
        prefix, code = self._program(problem, text)
        if code is None:
            return Verdict(0.0, "no code")
        with _sandbox():
            results = self._run(problem.data, prefix + code)
        reason = results.reason
        if results.syntax_error_line is not None:
            reason = f"syntax error line {max(1, results.syntax_error_line - prefix.count(chr(10)))}"
        if reason == "correct":
            return Verdict(1.0, reason)
        if self.reward == "all":
            return Verdict(0.0, reason)
        share = results.passed / results.tests
        return Verdict(share, f"{reason}; {results.passed} of {results.tests} passed", correct=False)

    def _run(self, data: Mapping[str, Any], program: str) -> TestResults:
        if data["layout"] == "inputs":
            inputs, outputs = data["inputs"], data["outputs"]
            return run_input_tests(
                program, inputs=inputs, outputs=outputs, limits=self.limits, stop_at_failure=self.reward == "all"
            )
        return run_function_tests(
            program, setup=data["setup"], tests=data["tests"], call=data.get("entry_point"), limits=self.limits
        )

    def read(self, id: str, record: Record) -> Problem:
        for fields, layout, read in _LAYOUTS:
            if all(field in record for field in fields):
                data = {"layout": layout, **read(record)}
                break
        else:
            raise MalformedRecordError(
                "has no tests: no 'test' with 'entry_point', no 'test_list', no 'inputs' with 'outputs'"
            )
        solution = next((record[field] for field in _SOLUTIONS if isinstance(record.get(field), str)), None)
        if solution is not None:
            data["solution"] = solution
        values = {"question": data["question"], "tests": "\n".join(data.get("tests", ()))}
        return Problem(id, self._templates[layout].fill(values), None, data)


@contextmanager
def _sandbox() -> Iterator[None]:
    """Where programs run: what the sandbox refuses becomes the error that users see."""
    try:
        yield
    except SandboxError as error:
        raise GradatimError(str(error)) from error


def extract_program(text: str) -> str | None:
    """The program in a model's text, or ``None`` where there is nothing but white space. Never raises.

    The last fenced block that is marked as Python counts, or else the last fenced block without a mark, or else the
    whole text. A block that the text breaks off in goes to its end.
    """
    blocks = [(mark.lower(), block) for mark, block in _FENCED.findall(text)]
    for marks in (_PYTHON, ("",)):
        for mark, block in reversed(blocks):
            if mark in marks and block.strip():
                return str(block)
    return text if text.strip() else None


def _complete(data: Mapping[str, Any], code: str) -> tuple[str, str]:
    """What comes before ``code`` so that it is a whole module, and ``code`` without what follows the function.

    A solution that defines the function itself needs only what the prompt has before it (imports, helpers); any other
    goes on where the prompt ends, and ends with the function's body.
    """
    if re.search(rf"^(?:(?:async )?def |class )?{re.escape(data['entry_point'])}\b\s*[(=:]", code, re.MULTILINE):
        return data["setup"], code
    prompt = data["question"]
    if not prompt.endswith("\n") and code[:1] in (" ", "\t"):
        prompt += "\n"
    following = _AFTER_THE_BODY.search(code)
    return prompt, code if following is None else code[: following.start()]


def _first_block_end(text: str) -> int | None:
    """The place after the first closed block that :func:`extract_program` would take."""
    for block in _FENCED.finditer(text):
        closed = block.end() > block.end(2)
        if closed and block[1].lower() in (*_PYTHON, "") and block[2].strip():
            return block.end()
    return None


def _after_the_program(problem: Problem, text: str) -> NextProblem | None:
    """Where a policy that continues the prompt as a file goes on to what is no part of its program any more.

    Behind a function's body that is anything at the file's own level; behind a whole program the docstring of a next
    one. Text in blocks, and text that does not continue the prompt, ends otherwise.
    """
    code = text.lstrip("\n")
    if "```" in text or not code.strip():
        return None
    following = None
    if problem.data["layout"] != "function":
        following = _NEXT_DOCSTRING.search(text, len(text) - len(code) + 1)
    elif code.startswith((" ", "\t")):
        following = _AFTER_THE_BODY.search(text)
    return None if following is None else NextProblem(following.start(), following.end())


def _template(text: str) -> Template:
    return Template(text, ["question", "tests"] if "{tests}" in text else ["question"])


def _function_layout(record: Record) -> dict[str, Any]:
    prompt, entry_point = text_field(record, "prompt"), text_field(record, "entry_point")
    definition = re.search(rf"^(?:async )?(?:def|class) {re.escape(entry_point)}\b", prompt, re.MULTILINE)
    if definition is None:
        raise MalformedRecordError(f"has a prompt that does not define its entry point {entry_point!r}")
    return {
        "question": prompt,
        "entry_point": entry_point,
        "setup": prompt[: definition.start()],
        "tests": [text_field(record, "test")],
    }


def _asserts_layout(record: Record) -> dict[str, Any]:
    setup = [*_texts(record, "test_imports"), str(record.get("test_setup_code") or "")]
    return {
        "question": _question(record),
        "setup": "\n".join(setup),
        "tests": _texts(record, "test_list", at_least=1),
    }


def _inputs_layout(record: Record) -> dict[str, Any]:
    inputs, outputs = _texts(record, "inputs", at_least=1), _texts(record, "outputs")
    if len(inputs) != len(outputs):
        raise MalformedRecordError(f"has {len(inputs)} inputs but {len(outputs)} outputs")
    return {"question": _question(record), "inputs": inputs, "outputs": outputs}


_LAYOUTS: tuple[tuple[tuple[str, ...], str, Callable[[Record], dict[str, Any]]], ...] = (
    (("test", "entry_point"), "function", _function_layout),
    (("test_list",), "asserts", _asserts_layout),
    (("inputs", "outputs"), "inputs", _inputs_layout),
)


def _question(record: Record) -> str:
    present = [field for field in _QUESTIONS if field in record]
    if not present:
        raise MalformedRecordError(f"has no question: no field {', '.join(map(repr, _QUESTIONS))}")
    return text_field(record, present[0])


def _texts(record: Record, field: str, *, at_least: int = 0) -> list[str]:
    value = record.get(field) or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise MalformedRecordError(f"has no list of texts in the field {field!r}")
    if len(value) < at_least:
        raise MalformedRecordError(f"has no text in the field {field!r}")
    return value
