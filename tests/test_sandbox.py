"""The sandbox, with hostile programs: each really tries, and what it tried to reach is looked at afterwards."""

from __future__ import annotations

import os
import platform
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gradatim_sandbox import (
    Channel,
    Execution,
    SandboxError,
    SandboxLimits,
    run,
    run_program,
    sandbox_layers,
    system_calls,
)
from gradatim_sandbox.run import Isolation

LIMITS = SandboxLimits(
    cpu_seconds=1, wall_seconds=15, memory_bytes=128 * 2**20, output_bytes=4096, file_bytes=2**18, threads=16
)
Run = Callable[..., Execution]


def _works(isolation: Isolation) -> bool:
    try:
        return run_program("", isolation=isolation).outcome == "finished"
    except SandboxError:
        return False


WAYS = {
    "namespaces": Isolation(use_namespaces=True),
    "namespaces without Landlock": Isolation(use_namespaces=True, landlock_version=0),
    "Landlock": Isolation(use_namespaces=False),
    "first Landlock": Isolation(use_namespaces=False, landlock_version=1),
}
AVAILABLE = {name: _works(isolation) for name, isolation in WAYS.items()} if sys.platform == "linux" else {}
needs_sandbox = pytest.mark.skipif(not any(AVAILABLE.values()), reason="needs namespaces or Landlock (Linux)")


@pytest.fixture(params=["namespaces", "Landlock"])
def sandbox(request: pytest.FixtureRequest) -> Run:
    """``run_program`` by one way of isolation; once for each."""
    return _runner(request.param)


@pytest.fixture(params=list(WAYS))
def any_sandbox(request: pytest.FixtureRequest) -> Run:
    """The same for all ways, for what guards files."""
    return _runner(request.param)


def _runner(way: str) -> Run:
    if not AVAILABLE.get(way):
        pytest.skip(f"this machine does not allow isolation by {way}")

    def runner(source: str, *, stdin: str = "", limits: SandboxLimits = LIMITS) -> Execution:
        return run_program(source, stdin=stdin, limits=limits, isolation=WAYS[way])

    return runner


def attempts(*statements: str) -> str:
    """A program that tries each statement and prints the errors' names; 'done' where one went through."""
    lines = ["import os, socket, ctypes, signal, sys"]
    for statement in statements:
        lines += ["try:", f"    {statement}", "    print('done', end=' ')"]
        lines += ["except BaseException as error:", "    print(type(error).__name__, end=' ')"]
    return "\n".join(lines)


def processes_marked(mark: str) -> list[int]:
    """Process ids whose command line contains ``mark``."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in command:
                found.append(int(folder.name))
    return found


def wait_until(condition: Callable[[], bool]) -> bool:
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False


# Ordinary programs


def test_a_program_reads_its_input_and_writes_output_and_scratch_files(sandbox: Run) -> None:
    source = """
import asyncio, sqlite3, sys, threading, tempfile
numbers = [int(word) for word in sys.stdin.read().split()]
with open("notes.txt", "x") as file:
    file.write("kept for a moment")
async def answer():
    await asyncio.sleep(0.001)
    return sum(numbers)
results = []
thread = threading.Thread(target=lambda: results.append(asyncio.run(answer())))
thread.start(); thread.join()
print(results, open("notes.txt").read(), "ä")
print("to the other stream", file=sys.stderr)
exit(0)
"""
    execution = sandbox(source, stdin="1 2\n39\n")
    assert execution.stdout == "[42] kept for a moment ä\n", execution
    assert execution.stderr == "to the other stream\n"
    assert (execution.outcome, execution.exit_code) == ("finished", 0)
    assert {"resource limits", "system calls"} < set(execution.layers)


@pytest.mark.parametrize(
    ("source", "outcome", "exit_code"),
    [
        ("raise SystemExit(3)", "failed", 3),
        ("import os; os._exit(0)", "finished", 0),
        ("import os; os.abort()", "crashed", None),
        ("import ctypes; ctypes.string_at(0)", "crashed", -11),
        ("def deeper(n): return deeper(n + 1)\ndeeper(0)", "failed", 1),
        ("def (", "failed", 1),
        ("\ud800", "failed", 1),
        ("\0", "failed", 1),
    ],
)
@needs_sandbox
def test_how_a_program_ended(source: str, outcome: str, exit_code: int | None) -> None:
    execution = run_program(source, limits=LIMITS)
    assert execution.outcome == outcome, execution
    assert exit_code in (None, execution.exit_code)


@needs_sandbox
def test_the_same_program_does_the_same_every_time() -> None:
    source = "print({'a', 'bc', 'def', 'ghij'}, hash('text'))"
    assert run_program(source).stdout == run_program(source).stdout != ""


@needs_sandbox
def test_many_programs_run_at_once_without_mixing() -> None:
    source = "import sys\nopen('mine', 'w').write(sys.stdin.read())\nprint(open('mine').read())"
    with ThreadPoolExecutor(6) as pool:
        outputs = list(pool.map(lambda number: run_program(source, stdin=str(number), limits=LIMITS).stdout, range(12)))
    assert outputs == [f"{number}\n" for number in range(12)]


@needs_sandbox
def test_a_channel_carries_bytes_both_ways() -> None:
    (program_reads, write), (read, program_writes) = os.pipe(), os.pipe()
    os.write(write, b"question")
    os.close(write)
    source = "import os\nos.write(4, os.read(3, 100).upper())\nprint(os.listdir('.'))"
    execution = run_program(source, limits=LIMITS, channel=Channel(program_reads, program_writes))
    with os.fdopen(read, "rb") as file:
        assert file.read() == b"QUESTION", execution
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(program_reads)


# Limits


def test_an_infinite_loop_ends_at_its_processor_time(sandbox: Run) -> None:
    source = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    execution = sandbox(source)
    assert execution.outcome == "time limit"
    assert execution.cpu_seconds > 0.8


def test_a_sleeper_that_ignores_signals_ends_at_its_time_on_the_clock(sandbox: Run) -> None:
    source = """
import signal, time
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
time.sleep(100)
"""
    assert sandbox(source, limits=SandboxLimits(wall_seconds=1)).outcome == "time limit"


def test_a_memory_bomb_meets_a_memory_error(sandbox: Run) -> None:
    execution = sandbox("hoard = []\nwhile True: hoard.append(bytearray(2**20))")
    assert execution.outcome == "memory limit", execution


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@needs_sandbox
def test_an_output_flood_is_cut_and_stopped(stream: str) -> None:
    source = f"import sys\nwhile True:\n    try: print('x' * 1000, file=sys.{stream})\n    except OSError: pass"
    execution = run_program(source, limits=LIMITS)
    assert execution.outcome == "output limit"
    assert len(getattr(execution, stream)) == LIMITS.output_bytes


def test_a_huge_file_and_many_files_do_not_fit(sandbox: Run) -> None:
    huge = sandbox("with open('huge', 'xb') as file:\n    for _ in range(10**6): file.write(bytes(2**16))")
    assert huge.outcome in ("failed", "file limit"), huge
    many = sandbox("for name in range(10**6): open(str(name), 'x').close()")
    assert many.outcome in ("failed", "file limit"), many
    large = sandbox("for name in range(1000):\n    with open(str(name), 'xb') as file: file.write(bytes(2**16))")
    assert large.outcome in ("failed", "file limit"), large


def test_open_files_and_threads_are_limited(sandbox: Run) -> None:
    files = sandbox("import os\nwhile True: os.dup(0)", limits=SandboxLimits(open_files=20))
    assert "Too many open files" in files.stderr
    source = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(100,), daemon=True).start()"
    threads = sandbox(source, limits=LIMITS)
    assert threads.outcome in ("failed", "crashed"), threads
    assert "can't start new thread" in threads.stderr


def test_a_fork_bomb_and_daemons_do_not_start(sandbox: Run) -> None:
    mark = f"sandbox-daemon-{os.getpid()}-{time.monotonic_ns()}"
    source = f"""
import os, subprocess, sys
sleeper = [sys.executable, "-c", "import time; time.sleep(60)", "{mark}"]
for start in (os.fork, os.forkpty, lambda: subprocess.Popen(sleeper),
              lambda: os.posix_spawn(sys.executable, sleeper, {{}})):
    try:
        if start() == 0:
            os.setsid()
            os.execv(sys.executable, sleeper)
        print("started")
    except OSError as error:
        print(type(error).__name__)
try:
    os.setsid()
except OSError as error:
    print(type(error).__name__, flush=True)
os.execv(sys.executable, [sys.executable, "-c", "print('still confined')", "{mark}"])
"""
    execution = sandbox(source)
    assert execution.stdout.split()[5:] == ["still", "confined"], execution
    assert set(execution.stdout.split()[:5]) <= {"PermissionError", "FileNotFoundError"}  # there is no /dev/ptmx
    assert processes_marked(mark) == []


def test_nothing_survives_its_time(sandbox: Run) -> None:
    mark = f"sandbox-survivor-{os.getpid()}-{time.monotonic_ns()}"
    source = (
        f"import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60)', '{mark}'])"
    )
    assert sandbox(source, limits=SandboxLimits(wall_seconds=1)).outcome == "time limit"
    assert processes_marked(mark) == []


# Files


def test_foreign_files_cannot_be_read(any_sandbox: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    secret.chmod(0o644)
    tmp_path.chmod(0o755)
    at_home = [str(path) for path in Path.home().iterdir() if path.is_file()][:2]
    paths = ["/etc/passwd", "/etc/hostname", "/proc/self/environ", "/proc/1/cmdline", f"/proc/{os.getpid()}/environ"]
    paths += [*at_home, str(secret), __file__, run.__file__, pytest.__file__, "/dev/mem", "/dev/sda", "/dev/vda"]
    execution = any_sandbox(attempts(*(f"open({path!r}, 'rb').read(1)" for path in paths)))
    assert set(execution.stdout.split()) <= {"PermissionError", "FileNotFoundError"}, execution
    assert len(execution.stdout.split()) == len(paths)
    # In its own file system the program sees the folders around the interpreter, with nothing else in them.
    listed = "if set(os.listdir('/etc')) <= {'ld.so.cache'}: raise PermissionError"
    execution = any_sandbox(attempts(f"os.listdir({str(tmp_path)!r})", listed, "os.listdir('/proc')"))
    assert set(execution.stdout.split()) <= {"PermissionError", "FileNotFoundError"}, execution


def test_nothing_outside_the_scratch_folder_can_be_changed(any_sandbox: Run, tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("untouched")
    victim.chmod(0o666)
    tmp_path.chmod(0o777)
    before = victim.stat()
    name, new = repr(str(victim)), repr(str(tmp_path / "new"))
    library = "os.__file__"
    statements = [
        f"open({name}, 'w')", f"open({name}, 'a')", f"open({new}, 'x')", f"os.truncate({name}, 0)",
        f"os.open({name}, os.O_RDONLY | os.O_TRUNC)", f"os.unlink({name})", f"os.rename({name}, {new})",
        f"os.replace('program.py', {name})", f"os.chmod({name}, 0)", f"os.utime({name})", f"os.mkdir({new})",
        f"os.link({name}, 'link')", f"os.symlink({name}, 'link')", "os.symlink('/', 'root')", "os.mkdir('folder')",
        f"os.setxattr({name}, 'user.mark', b'x')", f"os.mkfifo({new})", "os.chroot('.')",
        f"os.open({library}, os.O_RDONLY | os.O_TRUNC)", f"open({library}, 'r+')", f"os.chmod({library}, 0)",
        f"os.unlink({library})", "os.fchmod(os.open(os.__file__, os.O_RDONLY), 0)",
    ]  # fmt: skip
    library_before = Path(os.__file__).stat()
    execution = any_sandbox(attempts(*statements))
    refused = {"PermissionError", "FileNotFoundError", "OSError"}
    assert set(execution.stdout.split()) <= refused, list(zip(execution.stdout.split(), statements, strict=True))
    after = victim.stat()
    assert (after.st_mode, after.st_mtime_ns, victim.read_text()) == (before.st_mode, before.st_mtime_ns, "untouched")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim.txt"]
    library_after = Path(os.__file__).stat()
    assert (library_after.st_size, library_after.st_mode) == (library_before.st_size, library_before.st_mode)


@needs_sandbox
def test_the_scratch_folder_is_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for way, available in AVAILABLE.items():
        if available:
            execution = run_program("open('left', 'x').write('over')", limits=LIMITS, isolation=WAYS[way])
            assert execution.outcome == "finished", execution
    assert list(tmp_path.iterdir()) == []


# Network, other processes, secrets


def test_no_socket_reaches_a_listener(sandbox: Run, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
    ):
        address = listener.getsockname()
        local.bind(f"\0gradatim-{os.getpid()}-{time.monotonic_ns()}")
        local.listen()
        datagrams.bind(str(tmp_path / "socket"))
        for server in (listener, local, datagrams):
            server.settimeout(0)
        execution = sandbox(
            attempts(
                f"socket.create_connection({address!r}, 2)",
                "socket.create_connection(('192.0.2.1', 80), 2)",
                "socket.getaddrinfo('example.org', 80)",
                f"socket.socket(socket.AF_UNIX).connect({local.getsockname()!r})",
                f"socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', {str(tmp_path / 'socket')!r})",
                f"socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', {str(tmp_path / 'socket')!r})",
                f"socket.socketpair()[0].sendto(b'x', {local.getsockname()!r})",
                f"socket.socketpair()[0].connect({local.getsockname()!r})",
                "socket.socket(socket.AF_INET, socket.SOCK_RAW)",
                "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
            )
        )
        refused = {"PermissionError", "gaierror"}
        assert set(execution.stdout.split()) <= refused, execution
        assert len(execution.stdout.split()) == 10
        for server in (listener, local):
            with pytest.raises(BlockingIOError):
                server.accept()
        with pytest.raises(BlockingIOError):
            datagrams.recv(1)


def test_other_processes_cannot_be_signalled_or_looked_into(sandbox: Run) -> None:
    parent, library = os.getpid(), "ctypes.CDLL(None, use_errno=True)"
    # ptrace, process_vm_readv, unshare, io_uring_setup, bpf, keyctl
    numbers = (101, 310, 272, 425, 321, 250) if platform.machine() == "x86_64" else ()
    raw = [
        f"if {library}.syscall({number}, {parent}, 0, 0, 0) == -1: raise OSError(ctypes.get_errno(), '')"
        for number in numbers
    ]
    # Whether a signal may be sent does not depend on which, so that these do no harm where they get through.
    statements = [
        f"os.kill({parent}, signal.SIGURG)", f"os.kill({parent}, 0)", "os.kill(-1, 0)", "os.kill(0, signal.SIGURG)",
        f"os.killpg({os.getpgrp()}, signal.SIGURG)", "os.kill(os.getppid() or 2, signal.SIGURG)",
        f"os.setpriority(os.PRIO_PROCESS, {parent}, 19)",
        f"os.sched_setaffinity({parent}, [0])", f"os.pidfd_open({parent})",
        "os.setuid(0) if os.getuid() else os.setuid(1)",
        f"__import__('resource').prlimit({parent}, 7, (1, 1))",
        "__import__('resource').setrlimit(__import__('resource').RLIMIT_CPU, (100, 100))",
        f"__import__('fcntl').fcntl(0, 8, {parent})", *raw,
    ]  # fmt: skip
    execution = sandbox(attempts(*statements))
    words = execution.stdout.split()
    assert set(words) <= {"PermissionError", "OSError", "ValueError"}, list(zip(words, statements, strict=False))
    assert len(words) == len(statements), execution
    assert words[len(words) - len(raw) :] == ["PermissionError"] * len(raw)


@pytest.mark.parametrize("way", ["namespaces", "Landlock"])
def test_a_program_ends_with_a_caller_that_is_killed(way: str, tmp_path: Path) -> None:
    if not AVAILABLE.get(way):
        pytest.skip(f"this machine does not allow isolation by {way}")
    mark = f"sandbox-orphan-{os.getpid()}-{time.monotonic_ns()}"
    sleeper = "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60)', MARK])"
    source = f"""
import sys
from gradatim_sandbox.run import Isolation, run_program
run_program({sleeper!r}.replace("MARK", repr(sys.stdin.read())), isolation={WAYS[way]!r})
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # nobody is left to delete its folder
    caller = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, text=True, env=environment)
    assert caller.stdin is not None
    caller.stdin.write(mark)  # not by its command line, which would be taken for the program's
    caller.stdin.close()
    try:
        assert wait_until(lambda: processes_marked(mark) != [])
    finally:
        caller.kill()
        caller.wait()
    assert wait_until(lambda: processes_marked(mark) == [])


@needs_sandbox
def test_the_environment_and_the_callers_descriptors_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "the secret")
    readable, writable = os.pipe()
    os.set_inheritable(readable, True)
    source = """
import os
print("SECRET_KEY" in os.environ, b"the secret" in repr(os.environb).encode())
print([number for number in range(256) if not _closed(number)])
"""
    opening = "import os\ndef _closed(n):\n    try: os.fstat(n)\n    except OSError: return True\n"
    execution = run_program(opening + source, limits=LIMITS)
    os.close(readable)
    os.close(writable)
    assert execution.stdout == "False False\n[0, 1, 2]\n", execution


@needs_sandbox
def test_a_program_cannot_forge_how_it_ended() -> None:
    source = """
import json, os
report = json.dumps({"layers": [], "stopped": None, "status": 0, "cpu_seconds": 0, "wall_seconds": 0})
for descriptor in range(256):
    try: os.write(descriptor, report.encode())
    except OSError: pass
os._exit(7)
"""
    execution = run_program(source, limits=LIMITS)
    assert (execution.outcome, execution.exit_code) == ("failed", 7)


# The filter of system calls, for machines that the tests do not run on


def decide(program: bytes, number: int, arguments: tuple[int, ...] = (), architecture: int = 0xC00000B7) -> int:
    """What a seccomp filter answers, by an interpreter of its four instructions."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("=HBBI", program))
    place = accumulator = 0
    while True:
        operation, jump_if, jump_else, value = code[place]
        place += 1
        if operation == 0x20:
            accumulator = int.from_bytes(data[value : value + 4], "little")
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x15:
            place += jump_if if accumulator == value else jump_else
        else:
            assert operation == 0x06
            return value


def test_the_filter_for_aarch64() -> None:
    allowed, refused, no_such_call, killed = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
    program = system_calls._filter("aarch64", 77, truncating_opens=False)
    answers = {number: decide(program, number) for number in range(600)}
    # read, write, openat, mmap, futex, execve, exit_group
    assert {answers[number] for number in (63, 64, 56, 222, 98, 221, 94)} == {allowed}
    # mkdirat, symlinkat, mount, chroot, fchmod, ptrace, unshare, socket, bind, connect, sendmsg, bpf, io_uring_setup
    assert {answers[n] for n in (34, 36, 40, 51, 52, 117, 97, 198, 200, 203, 211, 280, 425)} == {refused}
    assert answers[435] == no_such_call
    thread, truncate = 0x3D0F00, os.O_TRUNC
    cases = [
        (220, (thread,), allowed), (220, (17,), refused),  # clone: of a thread, of a process
        (56, (0, 0, truncate), refused), (56, (0, 0, 1), allowed),  # openat
        (129, (77, 9), allowed), (129, (78, 9), refused), (129, (2**64 - 1, 9), refused),  # kill
        (25, (0, 3), allowed), (25, (0, 8), refused), (25, (0, 10), refused),  # fcntl: F_GETFL, F_SETOWN, F_SETSIG
        (199, (1, 1), allowed), (199, (1, 2), refused), (199, (2, 1), refused),  # socketpair
        (206, (0, 0, 0, 0, 0), allowed), (206, (0, 0, 0, 0, 2**32), refused), (206, (0, 0, 0, 0, 1), refused),  # sendto
    ]  # fmt: skip
    for number, arguments, answer in cases:
        assert decide(program, number, arguments) == answer, (number, arguments)
    assert decide(program, 63, architecture=0xC000003E) == killed
    x86_64 = system_calls._filter("x86_64", 77, truncating_opens=True)
    assert decide(x86_64, 0, architecture=0xC000003E) == allowed
    assert decide(x86_64, 0x40000000, architecture=0xC000003E) == refused  # the same call by the x32 interface
    with pytest.raises(OSError, match="no list of system calls"):
        system_calls._filter("riscv64", 77, truncating_opens=True)


# Refusal


@needs_sandbox
def test_layers_say_what_guards_files() -> None:
    layers = sandbox_layers()
    assert {"Landlock", "own file system"} & set(layers)
    assert {"resource limits", "system calls"} < set(layers)


def test_without_namespaces_and_landlock_programs_are_refused() -> None:
    with pytest.raises(SandboxError, match=r"cannot run programs safely on this machine: .*Landlock"):
        run_program("print(1)", isolation=Isolation(use_namespaces=False, landlock_version=0))


def test_the_sandbox_knows_nothing_of_what_uses_it() -> None:
    code = "import sys, gradatim_sandbox; print([name for name in sys.modules if name.split('.')[0] == 'gradatim'])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run._best_isolation.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="only be run safely on Linux"):
        run_program("print(1)")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cpu_seconds": 0}, r"cpu_seconds\n.*greater than 0"),
        ({"cpu_seconds": 1.5}, r"cpu_seconds\n.*valid integer"),
        ({"memory_bytes": 1000}, r"memory_bytes\n.*greater than or equal to 67108864"),
        ({"threads": -1}, r"threads\n.*greater than 0"),
    ],
)
def test_limits_out_of_range_are_refused(values: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SandboxLimits(**values)
