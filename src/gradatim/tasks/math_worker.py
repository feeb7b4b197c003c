"""The process in which answers are read; started by :mod:`gradatim.tasks.math_process`.

Computer algebra on a model's text can take for ever or all memory. A request that used up its processor time is given
up by a signal; but there are calls in which no signal handler runs, so all of it happens in a process of its own, which
the system ends a little later. Requests and replies are lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

CPU_SECONDS = 1.5
"""Processor time of one request. Time on the clock would make verdicts depend on what else the machine does."""

LAST_CPU_SECONDS = 2.5
"""Processor time after which the process is ended."""

MEMORY_BYTES = 4 << 30


def main() -> None:
    """Answer requests until the input ends."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no reply
    logging.disable(logging.CRITICAL)
    import math_verify

    from gradatim.tasks.math_forms import read_answer

    read_answer("(x+1)^{2}")  # what is loaded with the first formula is not on that formula's time
    _limit_memory()
    _reply(replies, {"ready": math_verify.__name__})
    for line in requests:
        request = json.loads(line)
        try:
            with _limited_time():
                read = read_answer(request["answer"])
                reply = {"form": read.form, "others": read.others, "relation": read.relation, "value": read.value}
        except (Exception, _OutOfTimeError) as error:  # the reader and sympy raise anything on a model's text
            reply = {"error": type(error).__name__}
        _reply(replies, reply)


class _OutOfTimeError(BaseException):
    """The request used up its time. No ``Exception``: those are caught within the libraries."""


def _reply(replies: BinaryIO, value: dict[str, Any]) -> None:
    replies.write(json.dumps(value).encode() + b"\n")
    replies.flush()


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    """Give the block up when it took too much processor time. (Windows has only the parent's clock.)

    Raises:
        _OutOfTimeError: if so. If that does not help, the process ends.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGPROF, _give_up)
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_VIRTUAL, LAST_CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _give_up(*_: object) -> None:
    raise _OutOfTimeError


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    main()
