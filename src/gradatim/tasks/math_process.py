"""Computer algebra that can neither hang nor break the program: requests to a process that is ended when it must be.

See :mod:`gradatim.tasks.math_worker` for why. One process serves all threads; it starts with the first request, and a
new one takes over after a request that had to be ended.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from gradatim.errors import GradatimError

CLOCK_SECONDS = 60.0
"""After this long the process is ended whatever it does; its own limit of processor time comes first."""

_WORKER = Path(__file__).with_name("math_worker.py")
_PACKAGES = Path(__file__).parents[2]
"""The folder that holds this package, which the worker imports from wherever this program has it."""


class MathProcess:
    """The process, started when it is needed. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, **request: str) -> dict[str, Any]:
        """The reply to a request; ``{"error": "Timeout"}`` where it took too long.

        Raises:
            GradatimError: if the process cannot be started at all.
        """
        with self._lock:
            reply = None
            try:
                reply = self._exchange(self._running(), json.dumps(request).encode() + b"\n")
            finally:
                if reply is None:  # also when interrupted: the next request would read this one's reply
                    self._end()
            return reply or {"error": "Timeout"}

    def close(self) -> None:
        """End the process; a later request starts another."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            # -P keeps the worker's own folder off its path, whose math.py would hide the standard library's.
            command = [sys.executable, "-P", str(_WORKER)]
            paths = [str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                )
            except OSError as error:
                raise GradatimError(f"cannot start the process that compares answers: {error.strerror}") from error
            if self._exchange(self._process, b"") is None:
                raise GradatimError("math-verify cannot be loaded; install it with 'pip install math-verify'")
        return self._process

    @staticmethod
    def _exchange(process: subprocess.Popen[bytes], request: bytes) -> dict[str, Any] | None:
        """Write a request and read the reply; ``None`` if the process ended before it replied."""
        clock = threading.Timer(CLOCK_SECONDS, process.kill)
        clock.daemon = True
        clock.start()
        try:
            _stream(process.stdin).write(request)
            _stream(process.stdin).flush()
            line = _stream(process.stdout).readline()
        except OSError:
            return None
        finally:
            clock.cancel()
        return json.loads(line) if line.endswith(b"\n") else None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what could not be written any more
                    _stream(stream).close()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # both are pipes
    return stream


_shared = MathProcess()


def ask(**request: str) -> dict[str, Any]:
    """The reply of the process that the whole program shares (see :meth:`MathProcess.ask`)."""
    return _shared.ask(**request)


def _end_shared() -> None:
    _shared.close()


def _forget_shared() -> None:
    """A forked program starts a process of its own: two cannot talk over one pipe."""
    global _shared
    _shared = MathProcess()


atexit.register(_end_shared)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_shared)
