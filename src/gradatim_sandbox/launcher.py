"""The process between caller and program: it shuts itself in, starts the program, ends it in time and reports.

It runs as a fresh single-threaded interpreter (see ``run.py``) with the standard library alone. Its child is the
program; the child's restrictions are applied in the child, just before it becomes the program, so they hold from the
first instruction of it. The report goes through a pipe that the program does not have.
"""

from __future__ import annotations

import marshal
import os
import resource
import signal
import time

from gradatim_sandbox import landlock, namespaces
from gradatim_sandbox.identity import free_identity, give_up_privileges, is_shared, readable_by_all
from gradatim_sandbox.kernel import prctl
from gradatim_sandbox.system_calls import allow_listed_calls_only

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gradatim_sandbox.limits import SandboxLimits

PROGRAM = "program.py"
CHANNEL = (3, 4)
"""The descriptors from which the program reads, and to which it writes, what its caller's channel carries."""

_PR_SET_PDEATHSIG = 1
_MOST_FILES = 1024
_STACK_BYTES = 8 * 2**20
_POLL_SECONDS = 0.02
# The environment is empty but for these. Hash order is fixed, so that a verdict does not depend on chance; and threads
# share one arena, since each arena of its own would take 64 MiB of the address space.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1", "TMPDIR": "."}
_OPTIONS = ("-s", "-P", "-B", "-X", "utf8")


class Order:
    """What the caller asks for.

    Attributes:
        source: the program.
        limits: what it may use, by the names of :class:`gradatim_sandbox.limits.SandboxLimits`.
        folder: an empty folder that is the caller's: where the new file system is mounted, or the scratch folder.
        executable: the interpreter.
        readable: all files and folders that it needs (see ``interpreter.py``).
        hidden: folders within the readable ones that it does not need.
        use_namespaces: whether to enter namespaces or to rely on Landlock.
        landlock_version: the newest version of Landlock to use, 0 for none.
        channel: the program's ends of the channel, as descriptors of the launcher.
        caller: the caller's process id.
    """

    source: str
    limits: SandboxLimits
    folder: str
    executable: str
    readable: tuple[str, ...]
    hidden: tuple[str, ...]
    use_namespaces: bool
    landlock_version: int
    channel: tuple[int, int] | None
    caller: int

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self.limits = _Limits(values["limits"])  # type: ignore[assignment]


class _Limits:
    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


class _Confinement:
    """What the program's process still has to do to itself."""

    def __init__(
        self, scratch: str, identity: int | None, own_threads: bool, landlock_version: int, truncating_opens: bool
    ) -> None:
        self.scratch = scratch
        self.identity = identity
        self.own_threads = own_threads  # nothing outside the sandbox counts against its limit of threads
        self.landlock_version = landlock_version
        self.truncating_opens = truncating_opens


def main(order_file: int, report_pipe: int) -> None:
    """Carry out the order that lies in one descriptor and write a report, or an error, to the other, marshalled."""
    try:
        with open(order_file, "rb") as file:
            order = Order(marshal.load(file))
        report = _carry_out(order)
    except OSError as error:
        report = {"error": f"{error.filename or 'the launcher'}: {error.strerror}"}
    with open(report_pipe, "wb") as file:
        marshal.dump(report, file)


def _carry_out(order: Order) -> dict[str, Any]:
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != order.caller:
        raise OSError(0, "the caller is gone")
    layers = ["resource limits", "system calls"]
    confinement = _shut_in(order, layers)
    with open(os.path.join(confinement.scratch, PROGRAM), "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(order.source)
    # Both must be waited for, not delivered: a signal between two calls would be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    started = time.monotonic()
    program = _start(order, confinement)
    stopped = _wait(program, started, order.limits, None if order.use_namespaces else confinement.scratch)
    _, status, usage = os.wait4(program, 0)
    return {
        "layers": layers,
        "stopped": stopped,
        "status": os.waitstatus_to_exitcode(status),
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.monotonic() - started,
    }


def _shut_in(order: Order, layers: list[str]) -> _Confinement:
    """Enter namespaces if they are to be used, and settle what remains for the program's own process."""
    identity = free_identity(os.getpid())
    scratch = order.folder
    own_users = False
    if order.use_namespaces:
        own_users = namespaces.enter_namespaces()
        room = order.limits.file_bytes + len(order.source.encode("utf-8", "surrogatepass"))
        namespaces.enter_empty_file_system(order.folder, order.readable, order.hidden, room)
        scratch = namespaces.SCRATCH
        layers += ["own file system", "own network", "own process tree", *["own users"] * own_users]
    if own_users or not readable_by_all(order.executable):
        identity = None
    if identity is not None:
        layers.append("unprivileged user")
        if not order.use_namespaces:
            os.chown(scratch, identity, identity)
    version = min(order.landlock_version, landlock.landlock_version())
    if version:
        layers.append("Landlock")
    elif not order.use_namespaces:
        raise OSError(0, "neither namespaces nor Landlock")
    os.chdir(scratch)
    return _Confinement(
        scratch,
        identity,
        own_threads=own_users or (identity is not None and not is_shared(identity)),
        landlock_version=version,
        truncating_opens=order.use_namespaces or version >= landlock.TRUNCATE_SINCE,
    )


def _start(order: Order, confinement: _Confinement) -> int:
    """Start the program; it is running when this returns its process id.

    Raises:
        OSError: what kept the child from confining itself or from becoming the program.
    """
    errors, child_errors = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(errors)
            _become_program(order, confinement, child_errors)
        except BaseException as error:
            os.write(child_errors, f"{type(error).__name__}: {error}".encode(errors="replace")[:500])
        finally:
            os._exit(127)
    os.close(child_errors)
    with open(errors, "rb") as file:
        failure = file.read().decode()
    if failure:
        os.waitpid(child, 0)
        raise OSError(0, failure)
    return child


def _become_program(order: Order, confinement: _Confinement, errors: int) -> None:
    """Confine the calling process and execute the program in it."""
    kept = _place_descriptors(order.channel, errors)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _limit_resources(order.limits, confinement.own_threads)
    give_up_privileges(confinement.identity)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
    if confinement.landlock_version:
        landlock.restrict_files(
            readable=[*order.readable, "/dev/urandom"],
            hidden=() if order.use_namespaces else order.hidden,
            writable=[confinement.scratch, "/dev/null"],
            version=confinement.landlock_version,
        )
    arguments = [order.executable, *_OPTIONS, PROGRAM]
    os.set_inheritable(kept, False)
    _limit(resource.RLIMIT_AS, order.limits.memory_bytes)  # last: the launcher itself needs more for a moment
    allow_listed_calls_only(truncating_opens=confinement.truncating_opens)
    os.execve(arguments[0], arguments, _ENVIRONMENT)


def _place_descriptors(channel: tuple[int, int] | None, errors: int) -> int:
    """Close everything but the standard streams, the channel (at its places) and ``errors``, whose place is returned.

    The copies are made far above those places first, so that none overwrites another.
    """
    high = [os.dup2(descriptor, 64 + place) for place, descriptor in enumerate((errors, *(channel or ())))]
    os.closerange(3, 64)
    for place, descriptor in zip(CHANNEL, high[1:], strict=False):
        os.dup2(descriptor, place)
    errors = os.dup2(high[0], 5)
    os.closerange(6, 128)  # the launcher was started with no other descriptors and opens few
    return errors


def _limit_resources(limits: SandboxLimits, own_threads: bool) -> None:
    _limit(resource.RLIMIT_CPU, limits.cpu_seconds)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_NOFILE, max(limits.open_files, 8))
    _limit(resource.RLIMIT_STACK, _STACK_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_MEMLOCK, 0)
    _limit(resource.RLIMIT_MSGQUEUE, 0)
    if own_threads:
        _limit(resource.RLIMIT_NPROC, limits.threads)


def _limit(kind: int, value: int) -> None:
    """Set a limit for good; one that is lower already stays."""
    _, most = resource.getrlimit(kind)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, value))


def _wait(program: int, started: float, limits: SandboxLimits, watched: str | None) -> str | None:
    """Wait until the program has ended, and end it where it must be: at its time, when the caller asks for it, or
    when a scratch folder on disk (``watched``; one in memory limits itself) has grown too large.

    Returns:
        Why it was ended, or ``None``.
    """
    while True:
        left = started + limits.wall_seconds - time.monotonic()
        if left <= 0:
            reason = "time limit"
            break
        received = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, min(left, _POLL_SECONDS) if watched else left)
        if received is not None and received.si_signo == signal.SIGCHLD:
            return None
        if received is not None:
            reason = "stopped"
            break
        if watched and _is_too_large(watched, limits.file_bytes):
            reason = "file limit"
            break
    os.kill(program, signal.SIGKILL)
    return reason


def _is_too_large(folder: str, most_bytes: int) -> bool:
    """Whether the files in a folder (the program itself apart) are too many or too large."""
    total = files = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                size = entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
            files += 1
            total += 0 if entry.name == PROGRAM else size
            if total > most_bytes or files > _MOST_FILES:
                return True
    return False
