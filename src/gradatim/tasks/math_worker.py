"""The process in which ``math-verify`` compares answers; started by :mod:`gradatim.tasks.math_answers`.

Computer algebra on a model's text can take for ever or all memory (``9^{9^{9^9}}``), inside calls that no signal
handler and no thread can stop. So it runs in a process of its own, which the system ends when a request used up its
processor time. Requests and replies are lines of JSON. This file imports nothing of the package: it starts fast, and
from anywhere.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from typing import Any, BinaryIO

CPU_SECONDS = 3.0
"""Processor time of one request. Time on the clock would make verdicts depend on what else the machine does."""

MEMORY_BYTES = 4 << 30


def main() -> None:
    """Answer requests until the input ends."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no reply
    logging.disable(logging.CRITICAL)
    import math_verify

    _limit_memory()
    _reply(replies, {"ready": math_verify.__name__})
    for line in requests:
        request = json.loads(line)
        with _limited_time():
            try:
                reply = _answer(**request)
            except Exception as error:  # math-verify and sympy raise anything on a model's text
                reply = {"error": type(error).__name__}
        _reply(replies, reply)


def _answer(answer: str, reference: str | None = None) -> dict[str, Any]:
    """Whether an answer equals the reference, or without a reference its normal form."""
    if reference is None:
        return {"form": _form(answer)}
    from math_verify import verify

    return {
        "equal": bool(verify(_parse(reference), _parse(answer), allow_set_relation_comp=True, timeout_seconds=None))
    }


def _parse(latex: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    config = LatexExtractionConfig(boxed_match_priority=-1)
    return list(parse(f"${latex}$", extraction_config=[config], parsing_timeout=None))


def _form(latex: str) -> str | None:
    """The expression as sympy writes it after evaluation; ``None`` where it reads none."""
    import sympy

    parsed = _parse(latex)
    if not parsed or isinstance(parsed[0], str):
        return None
    expression = parsed[0]
    with contextlib.suppress(Exception):  # what sympy cannot evaluate keeps its form
        evaluated = expression.doit()
        expression = expression if evaluated in (True, False) else evaluated
    if isinstance(expression, sympy.Expr) and expression.atoms(sympy.Float):
        expression = sympy.nsimplify(expression, rational=True)
    if expression.has(sympy.zoo, sympy.nan):
        return None
    if isinstance(expression, sympy.Interval):  # also an ordered pair, which looks the same
        left, right = "(" if expression.left_open else "[", ")" if expression.right_open else "]"
        return f"{left}{expression.start}, {expression.end}{right}"
    return str(expression)


def _reply(replies: BinaryIO, value: dict[str, Any]) -> None:
    replies.write(json.dumps(value).encode() + b"\n")
    replies.flush()


@contextlib.contextmanager
def _limited_time() -> Any:
    """End the process when the block took too much processor time. (Windows has only the parent's clock.)"""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    yield
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    main()
