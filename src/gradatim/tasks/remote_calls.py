"""Function tests in two processes: the tests in one, the program under test in the other.

Tests that run beside the program can be cheated: it may end the process with status 0, print what a passed test
prints, replace ``sorted``, or return an object that is equal to everything. So tests and program each run in a sandbox
of their own (this file is the first program of both) and speak over a pipe, one JSON value a line. What comes back
from the program is plain data that is built anew on the tests' side, with Python's own comparisons; anything else is a
:class:`Remote`, a stand-in that can be called, iterated and asked for attributes, and that equals only itself.

Both sides answer calls while they wait for an answer, so a test may pass a function. The tests answer nothing but
calls of functions that they passed.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, TextIO

_READ_END, _WRITE_END = 3, 4
_SEED = 0  # programs and tests that draw numbers draw the same every time

# Values that are rebuilt from the arguments of their constructor. Their modules are imported where such a value comes.
_REBUILT: dict[str, Callable[[Any], list[Any]]] = {
    "builtins.tuple": lambda value: [list(value)],
    "builtins.set": lambda value: [list(value)],
    "builtins.frozenset": lambda value: [list(value)],
    "builtins.dict": lambda value: [[list(item) for item in value.items()]],
    "builtins.bytes": lambda value: [list(value)],
    "builtins.bytearray": lambda value: [list(value)],
    "builtins.complex": lambda value: [value.real, value.imag],
    "builtins.range": lambda value: [value.start, value.stop, value.step],
    "collections.OrderedDict": lambda value: [[list(item) for item in value.items()]],
    "collections.deque": lambda value: [list(value), value.maxlen],
    "decimal.Decimal": lambda value: [str(value)],
    "fractions.Fraction": lambda value: [value.numerator, value.denominator],
    "datetime.datetime": lambda value: [*value.timetuple()[:6], value.microsecond],
    "datetime.date": lambda value: [value.year, value.month, value.day],
    "datetime.time": lambda value: [value.hour, value.minute, value.second, value.microsecond],
    "datetime.timedelta": lambda value: [value.days, value.seconds, value.microseconds],
}
_LARGEST_DECIMAL = 2**63  # above, digits take quadratic time, and Python refuses very many
_MUTABLE = (list, dict, set, deque, bytearray)


class EndedError(BaseException):
    """The other side is gone. No ``Exception``, so that no test takes it for the program's."""


class RemoteError(Exception):
    """An exception of the program that Python itself does not define."""


class Remote:
    """A stand-in for an object of the other side."""

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._peer.ask("call", self._number, list(arguments), keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # protocols that the other side could answer in its favour
            raise AttributeError(name)
        return self._peer.ask("get", self._number, [name], {})

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("set", self._number, [name, value], {})

    def __iter__(self) -> Iterator[Any]:
        iterator = self._peer.ask("iterate", self._number, [], {})
        while found := self._peer.ask("next", iterator._number, [], {}):
            yield from found


class Peer:
    """One end of the pipe.

    Args:
        reader: lines from the other side.
        writer: lines to it.
        calls_only: whether the other side may only call and iterate what it was given, not look into it.

    Attributes:
        ended: whether the other side is gone, or said what no honest side says.
    """

    def __init__(self, reader: TextIO, writer: TextIO, *, calls_only: bool) -> None:
        self._reader, self._writer, self._calls_only = reader, writer, calls_only
        self._lent: list[Any] = []
        self.ended = False

    def ask(self, operation: str, number: int, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """Have the other side do something with one of its objects; serves it until the answer comes.

        Changes that the other side made to lists, sets and the like among the arguments are made here as well.

        Raises:
            EndedError: if the other side is gone.
        """
        self.send({"do": operation, "with": number, "arguments": self.pack(arguments), "keywords": self.pack(keywords)})
        answer = self.serve()
        for mine, theirs in zip(arguments, self.unpack(answer.get("arguments", [])), strict=False):
            _make_equal(mine, theirs)
        if "error" in answer:
            raise _exception(*answer["error"])
        return self.unpack(answer["value"])

    def serve(self) -> dict[str, Any]:
        """Answer requests until something else comes, and return that.

        Raises:
            EndedError: if the other side is gone.
        """
        while True:
            message = self.receive()
            if "do" not in message:
                return message
            self.send(self._answer(message))

    def send(self, message: dict[str, Any]) -> None:
        try:
            print(json.dumps(message), file=self._writer, flush=True)
        except OSError:
            self.ended = True
            raise EndedError from None

    def receive(self) -> dict[str, Any]:
        try:
            message = json.loads(self._reader.readline())
            if not isinstance(message, dict):
                raise ValueError("no message")
        except (OSError, ValueError, RecursionError):
            self.ended = True
            raise EndedError from None
        return message

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            arguments, keywords = self.unpack(request["arguments"]), self.unpack(request["keywords"])
            value = self._do(request["do"], self._lent[request["with"]], arguments, keywords)
            changed = [argument if type(argument) in _MUTABLE else None for argument in arguments]
            return {"value": self.pack(value), "arguments": self.pack(changed)}
        except EndedError:
            raise
        except BaseException as error:
            return {"error": [type(error).__name__, str(error)[:200]]}

    def _do(self, operation: str, target: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        if operation == "call":
            return target(*arguments, **keywords)
        if operation == "iterate":
            return _Lent(iter(target))
        if operation == "next":
            return [item] if (item := next(target, _END)) is not _END else []
        if self._calls_only:
            raise PermissionError("a test's objects can only be called")
        if operation == "get":
            return getattr(target, *arguments)
        return setattr(target, *arguments)

    def lend(self, value: Any) -> dict[str, int]:
        """What stands for an object of this side."""
        self._lent.append(value)
        return {"lent": len(self._lent) - 1}

    def pack(self, value: Any) -> Any:
        """The JSON value of a value: plain data by value, everything else as something lent."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and abs(value) >= _LARGEST_DECIMAL:
            return {"int": hex(value)}
        for plain in (str, int, float):
            if isinstance(value, plain):
                return plain(value)
        if isinstance(value, list):
            return [self.pack(item) for item in value]
        if isinstance(value, Remote):
            return {"yours": value._number}
        if getattr(value, "tzinfo", None) is None:
            for kind in type(value).__mro__:
                name = f"{kind.__module__}.{kind.__qualname__}"
                if name in _REBUILT:
                    return {name: self.pack(_REBUILT[name](value))}
        return self.lend(value.value if isinstance(value, _Lent) else value)

    def unpack(self, value: Any) -> Any:
        """The value of a JSON value."""
        if isinstance(value, list):
            return [self.unpack(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((name, content),) = value.items()
        if name == "int":
            return int(content, 16)
        if name == "lent":
            return Remote(self, content)
        if name == "yours":
            return self._lent[content]
        if name not in _REBUILT:
            raise ValueError(f"no kind of value: {name}")
        module, _, kind = name.rpartition(".")
        return getattr(__import__(module), kind)(*self.unpack(content))


class _Lent:
    """Marks a value that must not be sent by value."""

    def __init__(self, value: Any) -> None:
        self.value = value


_END = object()


def _make_equal(mine: Any, theirs: Any) -> None:
    """Change one of this side's own containers to what the other side made of it."""
    if type(mine) is not type(theirs) or not isinstance(mine, _MUTABLE) or mine == theirs:
        return
    if isinstance(mine, (dict, set)):
        mine.clear()
        mine.update(theirs)
    elif isinstance(mine, deque):
        mine.clear()
        mine.extend(theirs)
    else:
        mine[:] = theirs


def _exception(name: Any, message: Any) -> Exception:
    kind = getattr(builtins, str(name), None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(str(message))
        except TypeError:  # such as UnicodeDecodeError, which is made of more than a message
            pass
    return RemoteError(f"{name}: {message}")


def serve_program() -> None:
    """The program's side: run what comes on standard input as a module, lend its names, and answer calls."""
    peer = Peer(os.fdopen(_READ_END), os.fdopen(_WRITE_END, "w"), calls_only=False)
    source = sys.stdin.read()
    names: dict[str, Any] = {"__name__": "solution", "__builtins__": builtins}
    _fix_chance(source)
    try:
        exec(compile(source, "solution.py", "exec", dont_inherit=True), names)
    except SyntaxError as error:
        peer.send({"syntax error": error.lineno})
        return
    except BaseException as error:
        peer.send({"error": [type(error).__name__, str(error)[:200]]})
        return
    public = {name: value for name, value in names.items() if not name.startswith("__")}
    peer.send({"names": list(public), **peer.lend(SimpleNamespace(**public))})
    with suppress(EndedError):
        peer.serve()


def run_tests() -> None:
    """The tests' side: read the tests from standard input, run them, and print what came out, as JSON.

    Standard input holds ``{"setup": source, "tests": [sources], "call": name or null}``. Setup and tests share their
    names; those that they lack are the program's, of which the standard library and the built-ins come first. With
    ``call``, the tests define ``check``, which is called with the program's function of that name.
    """
    report = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # tests that print do not print into the report
    text = sys.stdin.read()
    order = json.loads(text)
    _fix_chance(text)
    peer = Peer(os.fdopen(_READ_END), os.fdopen(_WRITE_END, "w"), calls_only=True)
    run = TestRun(peer)
    with suppress(EndedError):
        run.begin(order["setup"], order["tests"], order["call"])
    with report:
        json.dump(run.result(), report)


def _fix_chance(source: str) -> None:
    """Start the random numbers of a source that may use them at a fixed place."""
    if "random" in source:
        import random

        random.seed(_SEED)


class TestRun:
    """Counts the tests, which are the ``assert`` statements; a source without one is one test as a whole.

    An ``assert`` that was never reached counts as failed, unless its source ran to its end (in a helper function, only
    one branch of several is taken).
    """

    __test__ = False  # nothing for pytest

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._names: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
        self._states: list[bool | None] = []
        self._failures: dict[int, str] = {}
        self._started = False
        self._obstacle: dict[str, Any] | None = None

    def begin(self, setup: str, tests: list[str], call: str | None) -> None:
        """Run everything; what is found is in :meth:`result`.

        Raises:
            EndedError: if the program ends in the middle.
        """
        setup_tree, *trees = [ast.parse(source) for source in (setup, *tests)]
        numbers = [self._number(tree) for tree in trees]
        hello = self._peer.receive()
        if not isinstance(hello.get("names"), list):
            self._obstacle = hello
            return
        program, names = Remote(self._peer, hello.get("lent", 0)), hello["names"]
        if call is not None and call not in names:
            self._obstacle = {"missing": call}
            return
        self._started = True
        for name in _missing_names([setup_tree, *trees]):
            if name in sys.stdlib_module_names:
                self._names[name] = __import__(name)
            elif name in names:
                self._names[name] = getattr(program, name)
        self._names["_test"] = self._test
        try:
            self._execute(setup_tree)
        except Exception as error:
            self._obstacle = {"setup": _describe(error)}
            return
        function = None if call is None else getattr(program, call)
        for tree, own_numbers in zip(trees, numbers, strict=True):
            self._part(tree, own_numbers, function)

    def _part(self, tree: ast.Module, numbers: list[int], function: Any) -> None:
        """Run one source. Where it ends early, what it did not reach has failed."""
        try:
            self._execute(tree)
            if function is not None:
                self._names["check"](function)
        except Exception as error:
            for number in [number for number in numbers if self._states[number] is None] or numbers[-1:]:
                self._fail(number, _describe(error))
        else:
            if all(self._states[number] is None for number in numbers):
                self._states[numbers[0]] = True

    def _execute(self, tree: ast.Module) -> None:
        exec(compile(ast.fix_missing_locations(tree), "tests.py", "exec", dont_inherit=True), self._names)

    def _number(self, tree: ast.Module) -> list[int]:
        """Turn each ``assert`` into a test with a number, and return the numbers."""
        asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        asserts.sort(key=lambda node: (node.lineno, node.col_offset))
        first = len(self._states)
        numbers = {id(node): first + place for place, node in enumerate(asserts)}
        _AssertsToTests(numbers).visit(tree)
        self._states += [None] * max(1, len(asserts))
        return list(range(first, len(self._states)))

    def _test(self, number: int, condition: Callable[[], Any]) -> None:
        try:
            passed = bool(condition())
        except Exception as error:
            self._fail(number, _describe(error))
            return
        if not passed:
            self._fail(number, "wrong answer")
        elif self._states[number] is None:
            self._states[number] = True

    def _fail(self, number: int, reason: str) -> None:
        self._states[number] = False
        self._failures.setdefault(number, reason)

    def result(self) -> dict[str, Any]:
        """What was found, as JSON values.

        ``passed`` of ``tests``; ``failure``, the first failed test's number from 1 and the reason; ``obstacle``, what
        kept tests from running; ``ended``, whether the program was gone, and ``reached``, the test in which it went
        (``None`` before the first).
        """
        first = min(self._failures, default=None)
        complete = self._started and not (self._failures or self._obstacle or self._peer.ended)
        unreached = next((place for place, state in enumerate(self._states, 1) if state is None), len(self._states))
        return {
            "passed": sum(state is True for state in self._states),
            "tests": sum(state is not None or not complete for state in self._states),
            "failure": None if first is None else [first + 1, self._failures[first]],
            "obstacle": self._obstacle,
            "ended": self._peer.ended,
            "reached": unreached if self._started else None,
        }


def _missing_names(trees: list[ast.Module]) -> list[str]:
    """The names that tests use and neither define nor have from Python, in a fixed order."""
    used: set[str] = set()
    defined: set[str] = set(dir(builtins))
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.alias):
            defined.add(node.asname or node.name.partition(".")[0])
    return sorted(used - defined)


class _AssertsToTests(ast.NodeTransformer):
    """``assert condition`` becomes ``_test(number, lambda: condition)``."""

    def __init__(self, numbers: dict[int, int]) -> None:
        self._numbers = numbers

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        condition = ast.Lambda(ast.arguments([], [], None, [], [], None, []), node.test)
        arguments: list[ast.expr] = [ast.Constant(self._numbers[id(node)]), condition]
        return ast.copy_location(ast.Expr(ast.Call(ast.Name("_test", ast.Load()), arguments, [])), node)


def _describe(error: BaseException) -> str:
    name = str(error).partition(":")[0] if isinstance(error, RemoteError) else type(error).__name__
    return "wrong answer" if isinstance(error, AssertionError) else name
