"""Running one program in the sandbox, and what is known of it afterwards."""

from __future__ import annotations

import marshal
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from gradatim_sandbox.interpreter import executable, hidden_paths, readable_paths
from gradatim_sandbox.limits import SandboxLimits

Outcome = Literal["finished", "failed", "crashed", "time limit", "memory limit", "output limit", "file limit"]

# The kernel ends a process by ticks of its clock, which may run ahead of the time that it reports, in seconds.
_TICKS = 0.3
# Starting and clearing up take this long at most on a loaded machine; then the launcher itself is killed.
_GRACE_SECONDS = 30.0
_LATEST_LANDLOCK = 99
_KILLED = -9  # by SIGKILL, which not every system has

# The launcher needs a few modules of this package only, so the package is made without running its __init__ module.
_HERE = Path(__file__).resolve().parent
_BOOTSTRAP = """
import sys
order, report, folder = sys.argv[1:]
sys.modules["gradatim_sandbox"] = package = type(sys)("gradatim_sandbox")
package.__path__ = [folder]
from gradatim_sandbox.launcher import main
main(int(order), int(report))
"""


class SandboxError(Exception):
    """Nothing can be run safely here; the message is a sentence that says why, and what is needed."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Two pipe ends that a program gets besides its standard streams: it reads from its descriptor 3 and writes to
    its descriptor 4. :func:`run_program` closes both here."""

    read: int
    write: int


@dataclass(frozen=True, slots=True)
class Execution:
    """How a program ended.

    Attributes:
        outcome: ``"finished"`` with exit status 0, ``"failed"`` with another one, ``"crashed"`` by a signal, or the
            limit that ended it.
        exit_code: its exit status; the negative number of the signal that ended it.
        stdout: its standard output, as far as the limit allows; bytes that are no UTF-8 are replaced.
        stderr: the same of its standard error.
        cpu_seconds: processor time it used.
        wall_seconds: how long it ran.
        layers: see :func:`sandbox_layers`.
    """

    outcome: Outcome
    exit_code: int
    stdout: str
    stderr: str
    cpu_seconds: float
    wall_seconds: float
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Isolation:
    """Which of the two ways of guarding files is used; see :class:`gradatim_sandbox.launcher.Order`."""

    use_namespaces: bool
    landlock_version: int = _LATEST_LANDLOCK


class _RefusedError(Exception):
    """The launcher could not put all layers in force; the message says what was missing."""


def run_program(
    source: str,
    *,
    stdin: str = "",
    limits: SandboxLimits | None = None,
    channel: Channel | None = None,
    isolation: Isolation | None = None,
) -> Execution:
    """Run a Python program in the sandbox. Safe to call from many threads at once.

    The program has the standard library, an empty environment, ``stdin``, and an empty scratch folder as its working
    folder, in which it may make files (no folders). It cannot start other processes, but threads. Hash order is
    fixed, so a program that asks neither clock nor chance does the same every time.

    Args:
        source: the program.
        stdin: what it reads from its standard input.
        limits: what it may use; by default ``SandboxLimits()``.
        channel: further descriptors for it.
        isolation: the way of isolation; by default the best one that this machine has.

    Raises:
        SandboxError: if this machine cannot enforce the sandbox, or starts no more processes. Nothing that the program
            does raises.
    """
    try:
        return _run(source, stdin, limits or SandboxLimits(), channel, isolation or _best_isolation())
    except _RefusedError as error:
        raise SandboxError(f"cannot run programs safely on this machine: {error}") from None
    except OSError as error:
        raise SandboxError(f"cannot start a program in the sandbox: {error.strerror}") from error
    finally:
        if channel is not None:
            os.close(channel.read)
            os.close(channel.write)


def sandbox_layers() -> tuple[str, ...]:
    """The layers of protection that are in force on this machine, found by running an empty program.

    Raises:
        SandboxError: if no network, no foreign files and limits cannot all be enforced.
    """
    return run_program("").layers


@cache
def _best_isolation() -> Isolation:
    """Namespaces where they work, or Landlock.

    Raises:
        SandboxError: if neither works here.
    """
    if not sys.platform.startswith("linux"):
        raise SandboxError("programs can only be run safely on Linux; use a Linux machine or container")
    reasons = []
    for isolation in (Isolation(use_namespaces=True), Isolation(use_namespaces=False)):
        try:
            execution = _run("", "", SandboxLimits(), None, isolation)
        except _RefusedError as error:
            reasons.append(str(error))
        else:
            if execution.outcome == "finished":
                return isolation
            reasons.append(execution.stderr.strip().rpartition("\n")[2] or execution.outcome)
    raise SandboxError(
        "cannot run programs safely on this machine; it needs Linux 5.13 or later with Landlock, or user namespaces "
        f"({'; '.join(reasons)})"
    )


def _run(source: str, stdin: str, limits: SandboxLimits, channel: Channel | None, isolation: Isolation) -> Execution:
    with tempfile.TemporaryDirectory(prefix="gradatim-") as folder:
        order = {
            "source": source,
            "limits": asdict(limits),
            "folder": os.path.realpath(folder),
            "executable": executable(),
            "readable": readable_paths(),
            "hidden": hidden_paths(),
            **asdict(isolation),
            "channel": None if channel is None else (channel.read, channel.write),
            "caller": os.getpid(),
        }
        input_bytes = stdin.encode("utf-8", "surrogatepass")
        with _sealed(input_bytes) as program_input, _sealed(marshal.dumps(order)) as order_file:
            process, report_pipe = _launch(program_input.fileno(), order_file.fileno(), channel)
        with process:
            streams = _Streams(process, report_pipe, limits.output_bytes)
            try:
                streams.read_to_end(time.monotonic() + limits.wall_seconds + _GRACE_SECONDS)
            finally:
                _end(process)
    return _execution(streams, limits)


def _launch(program_input: int, order: int, channel: Channel | None) -> tuple[subprocess.Popen[bytes], int]:
    """Start the launcher; returns it and the pipe that its report comes from."""
    report_pipe, launcher_report = os.pipe()
    kept = [order, launcher_report, *(() if channel is None else (channel.read, channel.write))]
    try:
        process = subprocess.Popen(
            [executable(), "-I", "-S", "-c", _BOOTSTRAP, str(order), str(launcher_report), str(_HERE)],
            stdin=program_input,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            pass_fds=kept,
            start_new_session=True,
        )
    except BaseException:
        os.close(report_pipe)
        raise
    finally:
        os.close(launcher_report)
    return process, report_pipe


class _Streams:
    """What comes out of a launcher: the program's two streams up to the limit, and the report."""

    def __init__(self, process: subprocess.Popen[bytes], report_pipe: int, output_bytes: int) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._limit = output_bytes
        self.stdout, self.stderr, self.report = bytearray(), bytearray(), bytearray()
        self.overflowed = False
        self._open = {process.stdout.fileno(): self.stdout, process.stderr.fileno(): self.stderr}
        self._report_pipe = report_pipe

    def read_to_end(self, deadline: float) -> None:
        """Read until everyone who could write has ended, or the deadline is over."""
        with selectors.DefaultSelector() as selector, open(self._report_pipe, "rb", buffering=0):
            self._open[self._report_pipe] = self.report
            for descriptor in self._open:
                selector.register(descriptor, selectors.EVENT_READ)
            while self._open and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    if not self._read(key.fd):
                        selector.unregister(key.fd)
                        del self._open[key.fd]

    def _read(self, descriptor: int) -> bool:
        """Read what there is; ``False`` at the end of a stream."""
        data, kept = os.read(descriptor, 65536), self._open[descriptor]
        room = len(data) if kept is self.report else self._limit - len(kept)
        kept += data[:room]
        if len(data) > room and not self.overflowed:
            self.overflowed = True
            self._process.terminate()  # the launcher then ends the program
        return bool(data)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that the launcher and its program are gone; they are already unless something went wrong."""
    if process.poll() is None:
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _execution(streams: _Streams, limits: SandboxLimits) -> Execution:
    stdout, stderr = (bytes(data).decode(errors="replace") for data in (streams.stdout, streams.stderr))
    try:
        report: dict[str, Any] = marshal.loads(streams.report)
    except (EOFError, ValueError):
        said = stderr.strip()[-200:] or "nothing was printed"
        raise _RefusedError(f"the launcher ended without a report ({said})") from None
    if "error" in report:
        raise _RefusedError(report["error"])
    return Execution(
        _outcome(report, streams.overflowed, stderr, limits),
        report["status"],
        stdout,
        stderr,
        report["cpu_seconds"],
        report["wall_seconds"],
        tuple(report["layers"]),
    )


def _outcome(report: Mapping[str, Any], overflowed: bool, stderr: str, limits: SandboxLimits) -> Outcome:
    status: int = report["status"]
    if overflowed:
        return "output limit"
    if report["stopped"] in ("time limit", "file limit"):
        return "time limit" if report["stopped"] == "time limit" else "file limit"
    # The kernel kills at the limit; what it then counts can be a tick less.
    if status == _KILLED and report["cpu_seconds"] > limits.cpu_seconds - _TICKS:
        return "time limit"
    if status == 0:
        return "finished"
    if status < 0:
        return "crashed"
    return "memory limit" if stderr.rstrip().rpartition("\n")[2].startswith("MemoryError") else "failed"


def _sealed(data: bytes) -> FileIO:
    """An unnamed file in memory that holds ``data`` and cannot be changed."""
    import fcntl  # not on every system; on others this is never reached

    descriptor = os.memfd_create("gradatim", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    file = FileIO(descriptor, "r+")
    file.write(data)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    file.seek(0)
    return file
