"""A world of its own for a program: files, network, processes and names that nothing outside shares.

The new file system is empty but for the readable paths (bound read-only at their own places), ``/dev/null``,
``/dev/urandom`` and a scratch folder in memory; the old one is not reachable, not even by name. The network has no
device that is up. The first child of the calling process is the first process of a process tree: when it ends, the
kernel ends all others.
"""

from __future__ import annotations

import os

from gradatim_sandbox.kernel import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SCRATCH = "/scratch"
"""The scratch folder in the new file system: what the program writes there is gone with its last process."""

_NEW_MOUNTS, _NEW_NAMES, _NEW_IPC = 0x00020000, 0x04000000, 0x08000000
_NEW_USERS, _NEW_PROCESSES, _NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
_ALL_BUT_USERS = _NEW_MOUNTS | _NEW_NAMES | _NEW_IPC | _NEW_PROCESSES | _NEW_NETWORK

_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_EXECUTION, _REMOUNT = 1, 2, 4, 8, 32
_BIND, _RECURSIVE, _PRIVATE = 1 << 12, 1 << 14, 1 << 18
_DETACH = 2
_NOBODY = 65534
# Flags of statvfs that a bind mount must keep, and what mount calls them.
_KEPT_FLAGS = {
    2: 2,
    4: 4,
    8: 8,
    1024: 1024,
    2048: 2048,
    4096: 1 << 21,
}  # nosuid nodev noexec noatime nodiratime relatime
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOST_FILES = 1024


def enter_namespaces() -> bool:
    """Move the calling process into new namespaces; its next child is the first process of the new process tree.

    Returns:
        Whether a user namespace was needed: root does without, so that it can become nobody.

    Raises:
        OSError: if the machine allows none.
    """
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        try:
            libc("unshare", _ALL_BUT_USERS)
        except PermissionError:
            pass
        else:
            return False
    libc("unshare", _NEW_USERS | _ALL_BUT_USERS)
    for file, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{_NOBODY} {user} 1"),
        ("gid_map", f"{_NOBODY} {group} 1"),
    ):
        with open(f"/proc/self/{file}", "w") as mapping:
            mapping.write(line)
    return True


def enter_empty_file_system(
    mount_point: str, readable: Iterable[str], hidden: Iterable[str], scratch_bytes: int
) -> None:
    """Change to a new file system (see above), built over the empty folder ``mount_point``.

    Raises:
        OSError: if the machine does not allow to mount.
    """
    libc("mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)
    _mount_memory(mount_point, _NO_SETUID | _NO_DEVICES, "mode=0755,size=1m")
    for path in readable:
        _bind(path, mount_point + path, _READ_ONLY | _NO_SETUID | _NO_DEVICES)
    for path in hidden:
        _mount_memory(mount_point + path, _READ_ONLY | _NO_SETUID | _NO_DEVICES, "mode=0755,size=4k")
    for device in ("/dev/null", "/dev/urandom"):
        _bind(device, mount_point + device, _NO_SETUID | _NO_EXECUTION)
    os.mkdir(mount_point + SCRATCH)
    flags = _NO_SETUID | _NO_DEVICES | _NO_EXECUTION
    _mount_memory(mount_point + SCRATCH, flags, f"mode=0777,size={scratch_bytes},nr_inodes={_MOST_FILES}")
    os.chdir(mount_point)
    libc("syscall", _PIVOT_ROOT[os.uname().machine], b".", b".")
    libc("umount2", b".", _DETACH)  # the old file system lay on top of the new
    os.chdir("/")
    libc("mount", None, b"/", None, _REMOUNT | _BIND | _READ_ONLY | _NO_SETUID | _NO_DEVICES, None)


def _mount_memory(target: str, flags: int, options: str) -> None:
    libc("mount", b"tmpfs", os.fsencode(target), b"tmpfs", flags, options.encode())


def _bind(source: str, target: str, flags: int) -> None:
    if os.path.islink(source):  # /lib is usr/lib on many systems
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "x").close()
    libc("mount", os.fsencode(source), os.fsencode(target), None, _BIND | _RECURSIVE, None)
    present = os.statvfs(target).f_flag
    kept = sum(mount for seen, mount in _KEPT_FLAGS.items() if present & seen and not flags & mount)
    libc("mount", None, os.fsencode(target), None, _REMOUNT | _BIND | flags | kept, None)
