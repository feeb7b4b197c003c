"""The list of system calls that a program may make, as a seccomp filter that the kernel runs before each call.

Everything else fails with ``PermissionError``. What is absent matters as much as what is there: no ``socket``,
``connect`` or ``bind``; no ``fork``; no ``ptrace`` or access to another process; no ``mkdir``, ``symlink``, ``link``,
``chmod`` or ``truncate`` by name; no ``io_uring``, ``bpf``, ``mount``, ``unshare`` or keyring.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from gradatim_sandbox.kernel import prctl

# Name and number on x86_64 and on aarch64, the most frequent first; "-" where the machine has no such call.
_PLAIN = """
    read 0 63, write 1 64, futex 202 98, mmap 9 222, munmap 11 215, mprotect 10 226, brk 12 214, close 3 57,
    fstat 5 80, newfstatat 262 79, stat 4 -, lstat 6 -, statx 332 291, lseek 8 62, getdents64 217 61,
    rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, clock_gettime 228 113, getrandom 318 278,
    readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70, close_range 436 436,
    statfs 137 43, fstatfs 138 44, access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -,
    readlinkat 267 78, getcwd 79 17, chdir 80 49, fchdir 81 50, dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -,
    pipe2 293 59, flock 73 32, fsync 74 82, fdatasync 75 83, ftruncate 77 46, fallocate 285 47, sendfile 40 71,
    copy_file_range 326 285, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38, renameat2 316 276,
    umask 95 166, mremap 25 216, madvise 28 233, msync 26 227, set_robust_list 273 99, get_robust_list 274 100,
    set_tid_address 218 96, rseq 334 293, membarrier 324 283, sched_yield 24 124, sched_getaffinity 204 123,
    getcpu 309 168, arch_prctl 158 -, gettid 186 178, rt_sigpending 127 136, rt_sigsuspend 130 133,
    rt_sigtimedwait 128 137, sigaltstack 131 132, restart_syscall 219 128, pause 34 -, execve 59 221, exit 60 93,
    exit_group 231 94, wait4 61 260, waitid 247 95, getpid 39 172, getppid 110 173, getpgrp 111 -,
    getpgid 121 155, getsid 124 156, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177,
    getresuid 118 148, getresgid 120 150, getgroups 115 158, uname 63 160, sysinfo 99 179, times 100 153,
    getrusage 98 165, getrlimit 97 163, time 201 -, gettimeofday 96 169, clock_getres 229 114, nanosleep 35 101,
    clock_nanosleep 230 115, alarm 37 -, setitimer 38 103, getitimer 36 102, select 23 -, pselect6 270 72,
    poll 7 -, ppoll 271 73, epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -,
    epoll_pwait 281 22, epoll_pwait2 441 441, eventfd2 290 19, recvfrom 45 207, shutdown 48 210,
    getsockname 51 204, getpeername 52 205, getsockopt 55 209
"""
# Allowed for some arguments only.
_CHECKED = """
    open 2 -, openat 257 56, clone 56 220, kill 62 129, tgkill 234 131, prlimit64 302 261, ioctl 16 29,
    fcntl 72 25, socketpair 53 199, sendto 44 206
"""
_CLONE3 = 435  # on both
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_KILL, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x00050000
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06  # of 32 bits each
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

_CLONE_THREAD = 0x10000
_AF_UNIX, _SOCK_STREAM, _SOCKET_TYPE = 1, 1, 0xF
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_TERMINAL_AND_DESCRIPTOR = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# F_DUPFD to F_SETLKW, F_DUPFD_CLOEXEC, F_GETPIPE_SZ. Not F_SETOWN and F_SETSIG, which send signals to others.
_DESCRIPTOR_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)


class UnsupportedMachineError(OSError):
    """There is no filter for this processor."""


class _Check:
    """A 32-bit half of an argument, masked, must be one of ``values``."""

    def __init__(self, argument: int, values: tuple[int, ...], mask: int = 0xFFFFFFFF, high: bool = False) -> None:
        self.argument, self.values, self.mask, self.high = argument, values, mask, high


def allow_listed_calls_only(*, truncating_opens: bool) -> None:
    """Restrict the calling process, and what it executes, to the list. Irrevocable.

    Args:
        truncating_opens: whether files may be opened with ``O_TRUNC``. Landlock before kernel 6.2 does not know that
            this writes, so it must be ruled out here where Landlock alone guards files.

    Raises:
        OSError: if the kernel refuses, or the processor is unknown.
    """
    program = _filter(os.uname().machine, os.getpid(), truncating_opens)
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)


def _checks(pid: int, truncating_opens: bool) -> dict[str, tuple[_Check, ...]]:
    """What must hold of each checked call's arguments: all of its checks."""
    return {
        "open": () if truncating_opens else (_Check(1, (0,), mask=os.O_TRUNC),),
        "openat": () if truncating_opens else (_Check(2, (0,), mask=os.O_TRUNC),),
        "clone": (_Check(0, (_CLONE_THREAD,), mask=_CLONE_THREAD),),
        "kill": (_Check(0, (pid,)),),
        "tgkill": (_Check(0, (pid,)),),
        "prlimit64": (_Check(0, (0,)),),
        "ioctl": (_Check(1, _TERMINAL_AND_DESCRIPTOR),),
        "fcntl": (_Check(1, _DESCRIPTOR_COMMANDS),),
        # asyncio wakes itself through a pair; only stream pairs, which cannot be sent elsewhere.
        "socketpair": (_Check(0, (_AF_UNIX,)), _Check(1, (_SOCK_STREAM,), mask=_SOCKET_TYPE)),
        "sendto": (_Check(4, (0,)), _Check(4, (0,), high=True)),
    }


def _filter(machine: str, pid: int, truncating_opens: bool) -> bytes:
    """The filter in the kernel's form: instructions of 8 bytes."""
    if machine not in _ARCHITECTURES:
        raise UnsupportedMachineError(errno.ENOSYS, f"no list of system calls for {machine}")
    column, architecture = _ARCHITECTURES[machine]
    program = _load(_ARCHITECTURE) + _unless_equal(architecture, _return(_KILL)) + _load(_NUMBER)
    for number in _numbers(_PLAIN, column).values():
        program += _if_equal(number, _return(_ALLOW))
    numbers = _numbers(_CHECKED, column)
    for name, checks in _checks(pid, truncating_opens).items():
        if name in numbers:
            program += _if_equal(numbers[name], b"".join(map(_refuse_unless, checks)) + _return(_ALLOW))
    # The C library falls back on clone where there is no clone3, whose flags a filter cannot see.
    program += _if_equal(_CLONE3, _return(_ERROR | errno.ENOSYS))
    return program + _return(_ERROR | errno.EPERM)


def _numbers(table: str, column: int) -> dict[str, int]:
    rows = [entry.split() for entry in table.split(",")]
    return {name: int(numbers[column]) for name, *numbers in rows if numbers[column] != "-"}


def _refuse_unless(check: _Check) -> bytes:
    refuse = _return(_ERROR | errno.EPERM)
    code = _load(_ARGUMENTS + 8 * check.argument + 4 * check.high) + _instruction(_AND, check.mask)
    for place, value in enumerate(check.values):
        code += _instruction(_EQUAL, value, jump_if=len(check.values) - place)  # over the refusal
    return code + refuse


def _if_equal(value: int, body: bytes) -> bytes:
    return _instruction(_EQUAL, value, jump_else=len(body) // 8) + body


def _unless_equal(value: int, body: bytes) -> bytes:
    return _instruction(_EQUAL, value, jump_if=len(body) // 8) + body


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, offset)


def _return(action: int) -> bytes:
    return _instruction(_RETURN, action)


def _instruction(code: int, value: int, jump_if: int = 0, jump_else: int = 0) -> bytes:
    return struct.pack("=HBBI", code, jump_if, jump_else, value)
